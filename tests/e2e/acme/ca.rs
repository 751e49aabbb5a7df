//! A public CA as ACME (RFC 8555) shows it: a directory over TLS on a real socket, signed
//! requests with nonces, and validation that really comes to look (RFC 8737).

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use actors::Clock;
use openssl::x509::X509;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::version::{TLS12, TLS13};
use serde_json::{Value, json};

use super::issuing::{Root, requested};
use super::jws::{Jwk, Jws, decoded, encoded};
use super::look::look;

/// The CA.
pub(super) struct Ca {
    pub(super) port: u16,
    inner: Arc<Inner>,
    server: Option<ServerHandle>,
}

struct Inner {
    base: String,
    clock: Clock,
    root: Root,
    state: Mutex<State>,
}

/// What it knows, and how it is minded.
#[derive(Default)]
pub(super) struct State {
    nonces: BTreeSet<String>,
    made: u64,
    pub(super) accounts: Vec<Account>,
    pub(super) orders: Vec<Order>,
    /// Where port 443 of each name leads; validation of others waits until it is known.
    pub(super) hosts: BTreeMap<String, u16>,
    /// The next nonce is no good, whichever it is.
    pub(super) bad_nonce: bool,
    /// It does not believe what it sees.
    pub(super) distrustful: bool,
    /// No orders are taken for so many seconds.
    pub(super) limited: Option<u64>,
    pub(super) lifetime: i64,
}

pub(super) struct Account {
    key: Jwk,
    pub(super) contact: Value,
    forgotten: bool,
}

pub(super) struct Order {
    account: usize,
    pub(super) names: Vec<String>,
    proofs: Vec<Proof>,
    certificate: Option<String>,
}

struct Proof {
    token: String,
    status: &'static str,
    error: Value,
}

type Refusal = (StatusCode, &'static str, String);

impl Ca {
    /// Starts it; its clock is that of the certificates' ends.
    pub(super) fn start(clock: &Clock) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let now = i64::try_from(clock.now().seconds()).unwrap();
        let inner = Arc::new(Inner {
            base: format!("https://localhost:{port}"),
            clock: clock.clone(),
            root: Root::new(now),
            state: Mutex::new(State {
                lifetime: 90 * 86_400,
                ..State::default()
            }),
        });
        let server = Some(serve(inner.clone(), listener));
        Self {
            port,
            inner,
            server,
        }
    }

    /// Nobody answers there any more.
    pub(super) async fn leave(&mut self) {
        self.server.take().unwrap().stop(false).await;
    }

    /// It answers again, and knows what it knew.
    pub(super) fn come_back(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).unwrap();
        self.server = Some(serve(self.inner.clone(), listener));
    }

    pub(super) fn directory(&self) -> String {
        format!("{}/directory", self.inner.base)
    }

    pub(super) fn root_pem(&self) -> Vec<u8> {
        self.inner.root.pem()
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap()
    }

    /// How many orders it was given, taken or not.
    pub(super) fn orders(&self) -> usize {
        self.state().orders.len()
    }

    /// Names lead to a port from now on.
    pub(super) fn lead(&self, name: &str, port: u16) {
        self.state().hosts.insert(name.to_owned(), port);
    }

    /// It remembers no account.
    pub(super) fn forget_accounts(&self) {
        for account in &mut self.state().accounts {
            account.forgotten = true;
        }
    }
}

fn serve(inner: Arc<Inner>, listener: TcpListener) -> ServerHandle {
    let (chain, key) = inner.root.own();
    let chain = CertificateDer::pem_slice_iter(&chain).map(Result::unwrap);
    let key = PrivatePkcs8KeyDer::from(key.private_key_to_pkcs8().unwrap());
    let tls = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.collect(), key.into())
        .unwrap();
    let server = HttpServer::new(move || {
        App::new()
            .app_data(web::Data::from(inner.clone()))
            .default_service(web::to(answer))
    })
    .workers(1)
    .disable_signals()
    .listen_rustls_0_23(listener, tls)
    .unwrap()
    .run();
    let handle = server.handle();
    actix_web::rt::spawn(server);
    handle
}

async fn answer(ca: web::Data<Inner>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let ca = ca.into_inner();
    let path: Vec<_> = request.path().split('/').skip(1).collect();
    let mut response = match (request.method().as_str(), &*path) {
        ("GET", ["directory"]) => HttpResponse::Ok().json(ca.directory()),
        ("HEAD", ["nonce"]) => HttpResponse::Ok().finish(),
        ("POST", _) => ca.clone().signed(&path, &body).unwrap_or_else(|refused| {
            let (status, kind, detail) = refused;
            let kind = format!("urn:ietf:params:acme:error:{kind}");
            let mut response = HttpResponse::build(status);
            if status == StatusCode::TOO_MANY_REQUESTS {
                let wait = ca.state.lock().unwrap().limited.unwrap();
                response.insert_header(("Retry-After", wait.to_string()));
            }
            response
                .content_type("application/problem+json")
                .body(json!({"type": kind, "detail": detail}).to_string())
        }),
        _ => HttpResponse::MethodNotAllowed().finish(),
    };
    let nonce = ca.new_nonce().parse().unwrap();
    let headers = response.headers_mut();
    headers.insert("replay-nonce".parse().unwrap(), nonce);
    response
}

impl Inner {
    fn url(&self, path: &str) -> String {
        format!("{}/{path}", self.base)
    }

    fn directory(&self) -> Value {
        json!({
            "newNonce": self.url("nonce"),
            "newAccount": self.url("account"),
            "newOrder": self.url("order"),
            "revokeCert": self.url("revoke"),
            "keyChange": self.url("key"),
        })
    }

    fn new_nonce(&self) -> String {
        let mut state = self.state.lock().unwrap();
        state.made += 1;
        let nonce = format!("nonce-{}", state.made);
        state.nonces.insert(nonce.clone());
        nonce
    }

    /// A signed request, once its nonce, URL and signature are believed.
    fn signed(self: Arc<Self>, path: &[&str], body: &[u8]) -> Result<HttpResponse, Refusal> {
        let jws = Jws::read(body);
        let mut state = self.state.lock().unwrap();
        let known = state.nonces.remove(jws.header["nonce"].as_str().unwrap());
        if !known || std::mem::take(&mut state.bad_nonce) {
            return Err(bad("badNonce", "not one of mine"));
        }
        assert_eq!(jws.header["url"], self.url(&path.join("/")));
        if let ["account"] = path {
            return self.new_account(&mut state, &jws);
        }
        let kid = jws.header["kid"].as_str().unwrap();
        let account = kid.strip_prefix(&self.url("account/")).unwrap();
        let account: usize = account.parse().unwrap();
        let known = &state.accounts[account];
        if known.forgotten {
            return Err(bad("accountDoesNotExist", "never heard of it"));
        }
        assert!(jws.is_signed_by(&known.key), "the signature is wrong");
        match path {
            ["account", _] => {
                let told: Value = serde_json::from_slice(&jws.payload).unwrap();
                state.accounts[account].contact = told["contact"].clone();
                Ok(HttpResponse::Ok().json(json!({"status": "valid"})))
            }
            ["order"] => self.new_order(&mut state, account, &jws.payload),
            [kind, order, rest @ ..] => {
                let order: usize = order.parse().unwrap();
                assert_eq!(state.orders[order].account, account, "another's order");
                let which = rest.first().map(|which| which.parse().unwrap());
                self.clone().of_order(&mut state, kind, order, which, &jws)
            }
            _ => Err(bad("malformed", "no such resource")),
        }
    }

    fn new_account(&self, state: &mut State, jws: &Jws) -> Result<HttpResponse, Refusal> {
        let key = jws.key().unwrap();
        assert!(jws.is_signed_by(&key));
        let told: Value = serde_json::from_slice(&jws.payload).unwrap();
        if told["termsOfServiceAgreed"] != true {
            return Err(bad("userActionRequired", "agree first"));
        }
        state.accounts.push(Account {
            key,
            contact: told["contact"].clone(),
            forgotten: false,
        });
        let url = self.url(&format!("account/{}", state.accounts.len() - 1));
        let mut created = HttpResponse::Created();
        created.insert_header(("Location", url));
        Ok(created.json(json!({"status": "valid"})))
    }

    fn new_order(
        &self,
        state: &mut State,
        account: usize,
        payload: &[u8],
    ) -> Result<HttpResponse, Refusal> {
        let told: Value = serde_json::from_slice(payload).unwrap();
        let names = told["identifiers"].as_array().unwrap().iter().map(|one| {
            assert_eq!(one["type"], "dns");
            one["value"].as_str().unwrap().to_owned()
        });
        let names: Vec<_> = names.collect();
        let number = state.orders.len();
        let proofs = (0..names.len()).map(|which| Proof {
            token: encoded(format!("token {} {number} {which}", self.base).as_bytes()),
            status: "pending",
            error: Value::Null,
        });
        state.orders.push(Order {
            account,
            proofs: proofs.collect(),
            names,
            certificate: None,
        });
        if state.limited.is_some() {
            let why = "too many certificates for this name".to_owned();
            return Err((StatusCode::TOO_MANY_REQUESTS, "rateLimited", why));
        }
        let url = self.url(&format!("order/{number}"));
        let mut created = HttpResponse::Created();
        created.insert_header(("Location", url));
        Ok(created.json(self.order(state, number)))
    }

    fn of_order(
        self: Arc<Self>,
        state: &mut State,
        kind: &str,
        order: usize,
        which: Option<usize>,
        jws: &Jws,
    ) -> Result<HttpResponse, Refusal> {
        match (kind, which) {
            ("order", None) => Ok(HttpResponse::Ok().json(self.order(state, order))),
            ("authorization", Some(which)) => {
                Ok(HttpResponse::Ok().json(self.authorization(state, order, which)))
            }
            ("challenge", Some(which)) => {
                actix_web::rt::spawn(self.clone().validate(order, which));
                Ok(HttpResponse::Ok().json(self.challenge(state, order, which)))
            }
            ("finalize", None) => {
                let told: Value = serde_json::from_slice(&jws.payload).unwrap();
                let (names, key) = requested(&decoded(told["csr"].as_str().unwrap()));
                if names != state.orders[order].names {
                    return Err(bad("badCSR", "not what was ordered"));
                }
                if self.order(state, order)["status"] != "ready" {
                    let why = "not ready".to_owned();
                    return Err((StatusCode::FORBIDDEN, "orderNotReady", why));
                }
                let now = i64::try_from(self.clock.now().seconds()).unwrap();
                let chain = self.root.issue(&names, &key, now + state.lifetime);
                state.orders[order].certificate = Some(String::from_utf8(chain).unwrap());
                Ok(HttpResponse::Ok().json(self.order(state, order)))
            }
            ("certificate", None) => {
                let chain = state.orders[order].certificate.clone().unwrap();
                let mut response = HttpResponse::Ok();
                Ok(response
                    .content_type("application/pem-certificate-chain")
                    .body(chain))
            }
            _ => Err(bad("malformed", "no such resource")),
        }
    }

    fn order(&self, state: &State, number: usize) -> Value {
        let order = &state.orders[number];
        let all = |status| order.proofs.iter().all(|proof| proof.status == status);
        let status = match () {
            () if order.certificate.is_some() => "valid",
            () if all("valid") => "ready",
            () if order.proofs.iter().any(|proof| proof.status == "invalid") => "invalid",
            () => "pending",
        };
        let authorizations = 0..order.proofs.len();
        let authorizations =
            authorizations.map(|which| self.url(&format!("authorization/{number}/{which}")));
        json!({
            "status": status,
            "identifiers": order.names.iter().map(dns).collect::<Vec<_>>(),
            "authorizations": authorizations.collect::<Vec<_>>(),
            "finalize": self.url(&format!("finalize/{number}")),
            "certificate": order.certificate.as_ref()
                .map(|_| self.url(&format!("certificate/{number}"))),
        })
    }

    fn authorization(&self, state: &State, order: usize, which: usize) -> Value {
        let proof = &state.orders[order].proofs[which];
        json!({
            "status": proof.status,
            "identifier": dns(&state.orders[order].names[which]),
            "challenges": [
                {"type": "http-01", "url": self.url("elsewhere"), "token": "x",
                 "status": "pending"},
                self.challenge(state, order, which),
            ],
        })
    }

    fn challenge(&self, state: &State, order: usize, which: usize) -> Value {
        let proof = &state.orders[order].proofs[which];
        json!({
            "type": "tls-alpn-01",
            "url": self.url(&format!("challenge/{order}/{which}")),
            "token": proof.token,
            "status": proof.status,
            "error": proof.error,
        })
    }

    /// Comes to look, from two places, by two versions of TLS.
    async fn validate(self: Arc<Self>, order: usize, which: usize) {
        let (name, digest) = {
            let state = self.state.lock().unwrap();
            let of = &state.orders[order];
            let key = &state.accounts[of.account].key;
            let digest = key.digest_of(&of.proofs[which].token);
            (of.names[which].clone(), digest)
        };
        let port = loop {
            if let Some(port) = self.state.lock().unwrap().hosts.get(&name) {
                break *port;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        let mut outcome = Ok(());
        for version in [&TLS13, &TLS12] {
            let seen = look(port, &name, &["acme-tls/1"], version, b"").await;
            outcome = outcome.and(match seen {
                Ok(seen) if seen.alpn.as_deref() != Some(b"acme-tls/1") => {
                    Err("no acme-tls/1".to_owned())
                }
                Ok(seen) => proves(&seen.leaf, &name, &digest),
                Err(error) => Err(error.to_string()),
            });
        }
        let mut state = self.state.lock().unwrap();
        if state.distrustful {
            outcome = Err("the certificate does not\nconvince me".to_owned());
        }
        let proof = &mut state.orders[order].proofs[which];
        match outcome {
            Ok(()) => proof.status = "valid",
            Err(why) => {
                let kind = "urn:ietf:params:acme:error:unauthorized";
                proof.status = "invalid";
                proof.error = json!({"type": kind, "detail": why});
            }
        }
    }
}

/// Whether a certificate is the answer to a challenge (RFC 8737, section 3).
fn proves(leaf: &[u8], name: &str, digest: &[u8]) -> Result<(), String> {
    let certificate = X509::from_der(leaf).unwrap();
    let names = certificate.subject_alt_names().unwrap();
    let names: Vec<_> = names.iter().map(|name| name.dnsname()).collect();
    if names != [Some(name)] {
        return Err(format!("it is for {names:?}"));
    }
    // id-pe-acmeIdentifier, critical, OCTET STRING { OCTET STRING { SHA-256 } }
    let mut wanted = vec![0x06, 0x08, 0x2b, 6, 1, 5, 5, 7, 1, 31, 0x01, 0x01, 0xff];
    wanted.extend([0x04, 0x22, 0x04, 0x20]);
    wanted.extend(digest);
    let held = leaf.windows(wanted.len()).any(|part| part == wanted);
    held.then_some(()).ok_or("it is not the answer".to_owned())
}

fn dns(name: &String) -> Value {
    json!({"type": "dns", "value": name})
}

fn bad(kind: &'static str, detail: &str) -> Refusal {
    (StatusCode::BAD_REQUEST, kind, detail.to_owned())
}
