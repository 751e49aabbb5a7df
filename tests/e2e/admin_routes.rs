//! Nobody administers without a token: every call the served OpenAPI document names, with
//! every token that is none, and with every trick of a path.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use reveille::auth::{Scope, new_token, token_record};
use serde_json::Value;
use sim::Proof;

use crate::house::{House, NOW, id_of};

/// A connection that is kept, and that sends a path as it is.
struct Line {
    to: SocketAddr,
    stream: Option<BufReader<TcpStream>>,
}

/// What was answered.
#[derive(Debug)]
struct Told {
    status: u16,
    code: String,
    detail: String,
}

impl Line {
    fn to(house: &House) -> Self {
        Self {
            to: house.running.admin,
            stream: None,
        }
    }

    fn asks(&mut self, method: &str, path: &str, headers: &[String], body: &str) -> Told {
        let stream = self.stream.take().unwrap_or_else(|| {
            let stream = TcpStream::connect(self.to).unwrap();
            stream.set_nodelay(true).unwrap();
            let limit = Some(Duration::from_secs(30));
            stream.set_read_timeout(limit).unwrap();
            BufReader::new(stream)
        });
        let mut stream = stream;
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = || {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            line.trim_end().to_ascii_lowercase()
        };
        let first = line();
        let status = first.split(' ').nth(1);
        let status = status.unwrap_or_else(|| panic!("{method} {path}: {first:?}"));
        let status = status.parse().unwrap();
        let (mut length, mut close) = (0, false);
        loop {
            let header = line();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("content-length: ") {
                length = value.parse().unwrap();
            }
            close |= header == "connection: close";
            assert!(!header.starts_with("transfer-encoding"), "{header}");
        }
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        stream.read_exact(&mut body).unwrap();
        if !close && status != 400 {
            self.stream = Some(stream);
        }
        let problem = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let text = |key| problem[key].as_str().unwrap_or_default().to_owned();
        Told {
            status,
            code: text("code"),
            detail: text("detail"),
        }
    }
}

fn bearer(secret: &str) -> Vec<String> {
    vec![format!("Authorization: Bearer {secret}")]
}

/// A token as the store has it.
struct Minted {
    secret: String,
    hash: [u8; 32],
    scopes: Vec<Scope>,
}

async fn minted(house: &House, scopes: &[Scope]) -> Minted {
    let (secret, hash) = new_token().unwrap();
    let minted = Minted {
        secret,
        hash,
        scopes: scopes.to_vec(),
    };
    minted.is(house, false, None).await;
    minted
}

impl Minted {
    /// Writes what became of it.
    async fn is(&self, house: &House, revoked: bool, expires_after: Option<u64>) {
        let expires = expires_after.map(|seconds| NOW.plus_seconds(seconds));
        let mut record = token_record(&self.hash, "somebody", &self.scopes, NOW, expires);
        record.revoked = revoked;
        let store = &house.running.app.store;
        store.put_token(self.hash, record).await.unwrap();
    }
}

/// A call as the document has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Call {
    method: String,
    path: String,
    public: bool,
}

/// What the server itself says that it serves.
async fn documented(house: &House) -> Vec<Call> {
    let (status, document) = house.get("/api/openapi.json").await;
    assert_eq!(status, 200);
    let mut calls = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, call) in item.as_object().unwrap() {
            if !METHODS.contains(&method.to_uppercase().as_str()) {
                continue;
            }
            // The document demands a token; a call may say that it does not.
            let security = call.get("security").unwrap_or(&document["security"]);
            let asks = security.as_array().unwrap();
            let public = asks.iter().any(|way| way.as_object().unwrap().is_empty());
            calls.push(Call {
                method: method.to_uppercase(),
                path: path.clone(),
                public: public || asks.is_empty(),
            });
        }
    }
    calls
}

/// The path of a call for one device, or for nothing that is there.
fn at(call: &Call, id: &str) -> String {
    let path = call.path.replace("{id}", id).replace("{uuid}", "U-1");
    assert!(!path.contains('{'), "an unknown parameter in {path}");
    path
}

/// Other ways to write a path, which a server or a proxy might take for the same.
fn tricks(path: &str) -> Vec<String> {
    let (front, last) = path.rsplit_once('/').unwrap();
    let below = path.strip_prefix("/api/v1").unwrap_or(path);
    vec![
        format!("{path}/"),
        format!("{path};x=1"),
        format!("{front};x/{last}"),
        format!("/{path}"),
        path.replacen("/v1/", "/v1//", 1),
        format!("{front}//{last}"),
        format!("{front}/./{last}"),
        format!("{front}/%2e/{last}"),
        format!("/healthz/..{path}"),
        format!("/healthz/%2e%2e{path}"),
        format!("/metrics/%2e%2e{}", path.replace('/', "%2f")),
        format!("{front}/x/%2e%2e/{last}"),
        format!("{front}%2f{last}"),
        format!("{front}%2F{last}"),
        format!("{front}%5c{last}"),
        format!("{front}/%{:02x}{}", last.as_bytes()[0], &last[1..]),
        format!("/API/V1{below}"),
        format!("{front}/{}", last.to_uppercase()),
        format!("{path}%00"),
        format!("{path}%20"),
        format!("{path}.json"),
        format!("{path}?access_token=x&token=x"),
        format!("{path}#x"),
        format!("http://localhost{path}"),
        format!("http://localhost/healthz/..{path}"),
    ]
}

fn assert_kept_out(told: &Told, what: &str) {
    assert!(
        [400, 401, 403, 404].contains(&told.status),
        "{what}: {told:?}"
    );
}

#[actix_web::test]
async fn no_call_is_served_without_a_valid_token() {
    let house = House::start().await;
    let calls = documented(&house).await;
    assert!(calls.len() >= 28, "{}", calls.len());
    let public: BTreeSet<_> = calls.iter().filter(|call| call.public).collect();
    let public: Vec<_> = public.iter().map(|call| call.path.as_str()).collect();
    assert_eq!(public, PUBLIC, "what is shown to everybody");

    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let waiting = house.ask_information(&id).await;
    let (expired, revoked, valid) = (
        minted(&house, &Scope::ALL).await,
        minted(&house, &Scope::ALL).await,
        minted(&house, &Scope::ALL).await,
    );
    expired.is(&house, false, Some(0)).await;
    revoked.is(&house, true, None).await;
    let secret = &valid.secret;
    let basic = openssl::base64::encode_block(format!("admin:{secret}").as_bytes());
    let nobody = [
        ("no token", vec![]),
        ("a wrong token", bearer(&new_token().unwrap().0)),
        ("an expired token", bearer(&expired.secret)),
        ("a revoked token", bearer(&revoked.secret)),
        ("an empty token", bearer("")),
        ("its hash", bearer(&hex(&valid.hash))),
        ("a token but its last letter", bearer(&secret[..46])),
        ("a token and more", bearer(&format!("{secret}x"))),
        ("a token in lower case", bearer(&secret.to_lowercase())),
        ("two tokens", bearer(&format!("{secret} {secret}"))),
        ("no scheme", vec![format!("Authorization: {secret}")]),
        ("Basic", vec![format!("Authorization: Basic {basic}")]),
        ("another header", vec![format!("X-Api-Key: {secret}")]),
        ("a cookie", vec![format!("Cookie: token={secret}")]),
        (
            "the address of a proxy",
            vec!["X-Forwarded-For: 127.0.0.1".to_owned()],
        ),
    ];
    let mut line = Line::to(&house);
    let mut asked = 0;
    for call in calls.iter().filter(|call| !call.public) {
        let path = at(call, &id);
        for (who, headers) in &nobody {
            let told = line.asks(&call.method, &path, headers, "{}");
            assert_eq!(told.status, 401, "{who}: {call:?}: {told:?}");
            let in_query = format!("{path}?access_token={secret}&token={secret}");
            let told = line.asks(&call.method, &in_query, headers, "{}");
            assert_eq!(told.status, 401, "{who} by query: {call:?}: {told:?}");
            asked += 2;
        }
        // Every other method, and every other way to write the path.
        for method in METHODS {
            let told = line.asks(method, &path, &[], "{}");
            assert_eq!(told.status, 401, "{method} {path}: {told:?}");
            let told = line.asks("GET", &path, &[format!("{OVERRIDE}: {method}")], "{}");
            assert_eq!(told.status, 401, "GET as {method} {path}: {told:?}");
            asked += 2;
        }
        for (who, headers) in &nobody[..4] {
            for trick in tricks(&path) {
                let told = line.asks(&call.method, &trick, headers, "{}");
                assert_kept_out(&told, &format!("{who}: {} {trick}", call.method));
                asked += 1;
            }
        }
    }
    println!("{asked} requests without a valid token, none served");
    assert_eq!(house.state(&id, &waiting).await, "released");
    // The token that was bent in all these ways is good.
    let told = line.asks("GET", "/api/v1/devices", &bearer(secret), "");
    assert_eq!(told.status, 200, "{told:?}");
}

#[actix_web::test]
async fn each_call_demands_a_scope_and_no_trick_of_a_path_gets_around_it() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let waiting = house.ask_information(&id).await;
    let none = minted(&house, &[]).await;
    let mut alone = Vec::new();
    for scope in Scope::ALL {
        alone.push(minted(&house, &[scope]).await);
    }
    let mut line = Line::to(&house);
    let calls = documented(&house).await;
    for call in calls.iter().filter(|call| !call.public) {
        let path = at(call, &id);
        let told = line.asks(&call.method, &path, &bearer(&none.secret), "{}");
        assert_eq!(told.status, 403, "{call:?}: {told:?}");
        assert_eq!(told.code, "missing_scope", "{call:?}: {told:?}");
        for trick in tricks(&path) {
            let told = line.asks(&call.method, &trick, &bearer(&none.secret), "{}");
            assert_kept_out(&told, &format!("{} {trick}", call.method));
        }
        // The scope it names is the only one that is of any use.
        for token in &alone {
            let [scope] = token.scopes[..] else { panic!() };
            if told.detail.contains(&format!("{:?}", scope.name())) {
                continue;
            }
            let refused = line.asks(&call.method, &path, &bearer(&token.secret), "{}");
            assert_eq!(
                refused.status,
                403,
                "{} at {call:?}: {refused:?}",
                scope.name()
            );
        }
        let reads = alone
            .iter()
            .find(|token| token.scopes == [Scope::Read])
            .unwrap();
        if call.method == "GET" {
            for method in ["DELETE", "POST", "PUT", "PATCH"] {
                let mut headers = bearer(&reads.secret);
                headers.push(format!("{OVERRIDE}: {method}"));
                line.asks("GET", &path, &headers, "{}");
            }
        }
    }
    assert_eq!(
        house.state(&id, &waiting).await,
        "released",
        "nothing was cancelled"
    );
    assert_eq!(
        house.get("/api/v1/enrollment-links").await.1["items"],
        serde_json::json!([])
    );
}

#[actix_web::test]
async fn a_token_that_is_revoked_or_expires_is_void_on_a_connection_that_is_kept() {
    let house = House::start().await;
    let mut line = Line::to(&house);
    let revoked = minted(&house, &[Scope::Read]).await;
    let expires = minted(&house, &[Scope::Read]).await;
    expires.is(&house, false, Some(60)).await;
    let mut asks = |token: &Minted| {
        let told = line.asks("GET", "/api/v1/devices", &bearer(&token.secret), "");
        let kept = line
            .stream
            .as_ref()
            .map(|stream| stream.get_ref().local_addr().unwrap());
        (told.status, kept.unwrap())
    };
    let (status, first) = asks(&revoked);
    assert_eq!(status, 200);
    assert_eq!(asks(&expires), (200, first));
    revoked.is(&house, true, None).await;
    assert_eq!(
        asks(&revoked),
        (401, first),
        "from the moment it is written"
    );
    house.clock.set(NOW.plus_seconds(59));
    assert_eq!(asks(&expires), (200, first));
    house.clock.set(NOW.plus_seconds(60));
    assert_eq!(asks(&expires), (401, first));
}

#[actix_web::test]
async fn the_dialects_open_to_their_key_alone() {
    let house = House::start().await;
    let (device, _) = house.enrolled(Proof::Header).await;
    let id = id_of(&device);
    let basic = |user: &str, key: &str| {
        let both = openssl::base64::encode_block(format!("{user}:{key}").as_bytes());
        vec![format!("Authorization: Basic {both}")]
    };
    let nobody = [
        vec![],
        basic("nanomdm", "wrong"),
        basic("nanomdm", ""),
        basic("nanomdm", "Nano-Secret"),
        basic("admin", "nano-secret"),
        basic("", "nano-secret"),
        basic("nanomdm", &house.token),
        bearer("nano-secret"),
        bearer(&house.token),
    ];
    let mut line = Line::to(&house);
    let routes = DIALECT.iter().flat_map(|path| {
        let mounts = ["", "/api/v1/nanomdm"];
        mounts.map(|mount| match (mount, path.strip_prefix("/v1")) {
            ("", _) => (*path).to_owned(),
            (mount, below) => format!("{mount}{}", below.unwrap_or(path)),
        })
    });
    for path in routes {
        let path = path.replace("{id}", &id);
        for headers in &nobody {
            for method in METHODS {
                let told = line.asks(method, &path, headers, "");
                assert_eq!(told.status, 401, "{method} {path} {headers:?}: {told:?}");
            }
            for trick in tricks(&path) {
                let told = line.asks("PUT", &trick, headers, "");
                // A bearer of all scopes may learn that there is nothing at such a path.
                let knows = headers == &bearer(&house.token) && told.status == 405;
                assert!(
                    knows || [400, 401, 403, 404].contains(&told.status),
                    "{trick}: {told:?}"
                );
            }
        }
    }
    let told = line.asks("GET", "/v1/pushcert", &basic("nanomdm", "nano-secret"), "");
    assert_eq!(
        told.status, 400,
        "with the key it asks for a topic: {told:?}"
    );
}

#[actix_web::test]
async fn no_route_is_served_that_the_document_does_not_name() {
    let house = House::start().await;
    let served: BTreeSet<_> = documented(&house).await.into_iter().collect();
    let served: BTreeSet<_> = served
        .into_iter()
        .map(|call| (call.method, call.path))
        .collect();
    let mut registering = BTreeSet::new();
    sources(
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")),
        &mut |file, text| {
            // Tests may register what they like.
            let text = text.split("#[cfg(test)]").next().unwrap();
            if REGISTERS.iter().any(|word| text.contains(word)) {
                registering.insert(file.to_owned());
            }
        },
    );
    let listed: BTreeSet<_> = ROUTES_ELSEWHERE
        .iter()
        .map(|(file, _)| (*file).to_owned())
        .collect();
    let mut known = listed.clone();
    known.insert("api/mod.rs".to_owned());
    assert_eq!(
        registering, known,
        "routes are registered where nobody looks for them"
    );

    let page = include_str!("../../src/api/mod.rs");
    let (outside, inside) = page.split_once("web::scope(\"/api/v1\")").unwrap();
    let mut routes = BTreeSet::new();
    for (part, prefix) in [(outside, ""), (inside, "/api/v1")] {
        for route in part.split(".route(").skip(1) {
            let path = format!("{prefix}{}", route.split('"').nth(1).unwrap());
            let method = route.split("web::").nth(1).unwrap();
            let method = method.split('(').next().unwrap().to_uppercase();
            routes.insert((method, path));
        }
    }
    let document = ("GET".to_owned(), "/api/openapi.json".to_owned());
    assert!(routes.remove(&document));
    assert_eq!(routes, served, "the document and the routes differ");
}

fn sources(folder: &Path, take: &mut dyn FnMut(&str, &str)) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, take);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            let root = concat!(env!("CARGO_MANIFEST_DIR"), "/src/");
            take(path.to_str().unwrap().strip_prefix(root).unwrap(), &text);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND",
];
const OVERRIDE: &str = "X-HTTP-Method-Override";
/// Shown to whoever reaches the admin listener, as the document says of each.
const PUBLIC: [&str; 4] = ["/healthz", "/metrics", "/readyz", "/version"];
/// What the dialect serves, under its own names.
const DIALECT: [&str; 5] = [
    "/v1/pushcert",
    "/v1/push/{id}",
    "/v1/enqueue/{id}",
    "/v1/anything",
    "/migration",
];
/// How actix-web is told of a route.
const REGISTERS: [&str; 9] = [
    ".route(",
    "web::resource(",
    "web::scope(",
    ".service(",
    "#[get(",
    "#[post(",
    "#[put(",
    "#[delete(",
    "#[route(",
];
/// Routes that are not of the document, and why.
const ROUTES_ELSEWHERE: [(&str, &str); 5] = [
    ("mdm.rs", "the device listener: check-ins and reports"),
    ("scep.rs", "the device listener: certificates"),
    ("enroll.rs", "the device listener: enrollment links"),
    ("compat/nanomdm.rs", "NanoMDM's API, under its own key"),
    ("compat/nanomdm/migration.rs", "the same"),
];
