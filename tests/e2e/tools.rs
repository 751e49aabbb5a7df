//! Tools that are not ours: OpenSSL's commands at our door, nginx before it. Each test
//! says aloud that it skips where its tool is not installed.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use sim::{Channel, Client, Proof, Target};

use crate::house::{House, TOPIC, id_of};
use crate::tls::CertificateFiles;

/// Runs a tool to its end, apart from the thread that serves; `None` where it is missing.
async fn run(mut command: Command) -> Option<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = tokio::task::spawn_blocking(move || command.stdin(Stdio::null()).output());
    match output.await.unwrap() {
        Ok(output) => Some(output),
        Err(_) => {
            println!("skipped: {name} is not installed");
            None
        }
    }
}

#[actix_web::test]
async fn openssl_sees_tls_1_3_the_right_chain_and_our_cas_asked_for() {
    let house = House::tls(|_| {}).await;
    let root = house.data().join("tls-root.pem");
    let at = format!("localhost:{}", house.running.device.port());
    let handshake = |version: &str| {
        let mut command = Command::new("openssl");
        command.args(["s_client", "-connect", &at, "-servername", "localhost"]);
        command.args([version, "-verify_return_error", "-verify_hostname"]);
        command.arg("localhost").arg("-CAfile").arg(&root);
        run(command)
    };
    for (version, protocol) in [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")] {
        let Some(output) = handshake(version).await else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{version}: {said}");
        assert!(said.contains(protocol), "{said}");
        assert!(said.contains("Verify return code: 0 (ok)"), "{said}");
        let named = said.split("Acceptable client certificate CA names").nth(1);
        let named = named.expect("a CertificateRequest").lines().skip(1);
        let named: Vec<_> = named.take_while(|line| line.contains('=')).collect();
        assert!(named.len() >= 2, "our device CA and the extra one: {said}");
        assert!(named[0].contains("CN"), "{named:?}");
    }
    let mut old = Command::new("openssl");
    old.args(["s_client", "-connect", &at, "-tls1_1"]);
    assert!(!run(old).await.unwrap().status.success(), "1.1 is refused");
}

#[actix_web::test]
async fn openssl_verifies_a_profile_and_finds_in_it_what_is_needed() {
    let house = House::tls(|_| {}).await;
    house.import_push_certificate().await;
    let (_, link) = house.post("/api/v1/enrollment-links", &json!({})).await;
    let client = over_tls(house.running.app.tls_root_pem.as_ref().unwrap());
    let profile = client.get(link["url"].as_str().unwrap()).send().await;
    let profile = profile.unwrap().bytes().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("enroll.mobileconfig");
    let verify = async |profile: &[u8]| {
        std::fs::write(&file, profile).unwrap();
        let mut command = Command::new("openssl");
        command.args(["cms", "-verify", "-inform", "DER", "-purpose", "any"]);
        command.arg("-CAfile").arg(house.data().join("profile.pem"));
        command.arg("-in").arg(&file);
        run(command).await
    };
    let Some(verified) = verify(&profile).await else {
        return;
    };
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    assert!(verified.status.success(), "{said}");
    let content = plist::Value::from_reader_xml(&verified.stdout[..]).unwrap();
    let payloads = content.as_dictionary().unwrap()["PayloadContent"].as_array();
    let types = payloads.unwrap().iter().map(|payload| {
        let payload = payload.as_dictionary().unwrap();
        payload["PayloadType"].as_string().unwrap()
    });
    assert_eq!(
        types.collect::<Vec<_>>(),
        [
            "com.apple.security.root",
            "com.apple.security.scep",
            "com.apple.mdm"
        ]
    );
    let mut changed = profile.to_vec();
    let topic = changed
        .windows(TOPIC.len())
        .position(|at| at == TOPIC.as_bytes());
    changed[topic.unwrap()] ^= 1;
    let refused = verify(&changed).await.unwrap();
    assert!(
        !refused.status.success(),
        "a changed profile is no longer signed"
    );
}

#[actix_web::test]
async fn nginx_passes_client_certificates_on_by_our_recipe() {
    let directory = tempfile::tempdir().unwrap();
    let house = House::with(|config| {
        config.device.client_cert_header = "X-Client-Cert".into();
    })
    .await;
    let Some(nginx) = Nginx::start(directory.path(), &house).await else {
        return;
    };
    let target = Target {
        proof: Proof::Tls,
        ..Target::tls(&nginx.url, nginx.files.root_pem().as_ref()).unwrap()
    };
    let (device, _) = house.new_device(Proof::Tls);
    let mut client = Client::new(Arc::new(target));
    sim::enroll(&device, &mut client).await.unwrap();
    let id = id_of(&device);
    let uuid = house.ask_information(&id).await;
    let mut mood = sim::Behaviour::default().mood(&device);
    let session = sim::poll_session(&device, Channel::Device, &mut client, &mut mood).await;
    assert_eq!(session.completed().unwrap().steps.len(), 1);
    assert_eq!(house.state(&id, &uuid).await, "acknowledged");

    let nobody = over_tls(&nginx.files.root_pem());
    let own = base64_of(&device.identity.cert_der);
    for forged in [None, Some(own)] {
        let mut idle = nobody
            .put(format!("{}/mdm/connect", nginx.url))
            .body(device.idle(Channel::Device));
        if let Some(forged) = forged {
            idle = idle.header("X-Client-Cert", forged);
        }
        assert_eq!(idle.send().await.unwrap().status(), 403);
    }
    let (stranger, _) = house.new_device(Proof::Tls);
    client.disconnect();
    let foreign = client
        .report(&stranger.identity, device.idle(Channel::Device))
        .await;
    assert_eq!(foreign.unwrap().status, 403, "another device's certificate");
    let long = format!(
        "{}/scep?operation=PKIOperation&message={}",
        nginx.url,
        "A".repeat(60 << 10)
    );
    let long = nobody.get(long).send().await.unwrap().text().await.unwrap();
    assert!(
        !long.contains("nginx"),
        "a long SCEP URL comes through: {long}"
    );
}

/// nginx with the recipe of the documentation.
struct Nginx<'d> {
    child: Child,
    url: String,
    files: CertificateFiles<'d>,
}

impl<'d> Nginx<'d> {
    async fn start(directory: &'d Path, house: &House) -> Option<Self> {
        let files = CertificateFiles::in_(directory);
        files.renew();
        let recipe = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies/nginx.conf");
        let recipe = std::fs::read_to_string(recipe).unwrap();
        let cas = directory.join("device-cas.pem");
        let own = std::fs::read(house.data().join("ca.pem")).unwrap();
        std::fs::write(&cas, [own, house.ca.pem()].concat()).unwrap();
        let shown = |path: std::path::PathBuf| path.display().to_string();
        let mut port = free_port();
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let filled = [
                (
                    "127.0.0.1:8443; # CHANGE",
                    house.running.device.to_string() + ";#",
                ),
                ("listen 443 ssl;", format!("listen 127.0.0.1:{port} ssl;")),
                ("/etc/ssl/mdm.example.org.pem", shown(files.certificate())),
                ("/etc/ssl/private/mdm.example.org.key", shown(files.key())),
                ("/etc/reveille/device-cas.pem", shown(cas.clone())),
            ];
            let recipe = filled.iter().fold(recipe.clone(), |recipe, (from, to)| {
                assert!(recipe.contains(from), "the recipe has no {from}");
                recipe.replace(from, to)
            });
            let here = directory.display();
            let whole = format!(
                "daemon off;\nerror_log {here}/error.log;\npid {here}/pid;\nevents {{}}\n\
                 http {{\naccess_log off;\nclient_body_temp_path {here}/b;\n\
                 proxy_temp_path {here}/p;\nfastcgi_temp_path {here}/f;\n\
                 uwsgi_temp_path {here}/u;\nscgi_temp_path {here}/s;\n{recipe}\n}}\n"
            );
            std::fs::write(directory.join("nginx.conf"), whole).unwrap();
            let mut command = Command::new("nginx");
            command.arg("-c").arg(directory.join("nginx.conf"));
            let log = directory.join("error.log");
            command.args(["-p", &here.to_string()]).arg("-e").arg(&log);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let Ok(mut child) = command.spawn() else {
                println!("skipped: nginx is not installed");
                return None;
            };
            while child.try_wait().unwrap().is_none() {
                if tokio::net::TcpStream::connect(("127.0.0.1", port))
                    .await
                    .is_ok()
                {
                    let url = format!("https://localhost:{port}");
                    return Some(Self { child, url, files });
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let said = std::fs::read_to_string(log).unwrap_or_default();
            assert!(Instant::now() < deadline, "nginx does not start: {said}");
            assert!(said.contains("already in use"), "{said}");
            port = free_port();
        }
    }
}

impl Drop for Nginx<'_> {
    fn drop(&mut self) {
        // Its workers end with it only when it is asked, not killed.
        let _ = Command::new("kill")
            .arg(self.child.id().to_string())
            .status();
        let _ = self.child.wait();
    }
}

/// Free a moment ago: nginx cannot be told to choose, and tries another when it is taken.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn over_tls(root_pem: &[u8]) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(root_pem).unwrap();
    let client = reqwest::Client::builder().tls_certs_only([root]);
    client.no_proxy().build().unwrap()
}

fn base64_of(der: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(der)
}
