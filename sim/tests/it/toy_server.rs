//! A toy MDM server: just enough of the protocol for the simulator to be
//! judged by. Keeps a queue per device; a command leaves it with its result.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use plist::{Dictionary, Value};
use tokio::net::TcpListener;

/// A running toy server.
pub(crate) struct ToyServer {
    pub(crate) url: String,
    pub(crate) state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    /// UDID (and `:UserID`) to waiting commands: uuid, RequestType.
    pub(crate) queues: HashMap<String, VecDeque<(String, String)>>,
    /// Results taken: id, uuid to statuses in order.
    pub(crate) results: BTreeMap<(String, String), Vec<String>>,
    /// MessageTypes seen, per id.
    pub(crate) check_ins: HashMap<String, Vec<String>>,
    /// How many commands were ever queued through the admin door.
    pub(crate) queued: u64,
    /// Answer the next so many results (not Idle) with 503.
    pub(crate) refuse_results: usize,
    /// Forget every so many-th result (0: none): its command is handed again.
    pub(crate) forget_every: usize,
    taken: usize,
}

impl ToyServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = shared.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(state.clone(), request));
                    // A device may vanish at any time.
                    let _ = http1::Builder::new()
                        .half_close(true)
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { url, state }
    }

    /// Queues a command; gives its uuid.
    pub(crate) fn queue(&self, id: &str, uuid: &str, request_type: &str) {
        let mut state = self.state.lock().unwrap();
        let queue = state.queues.entry(id.to_owned()).or_default();
        queue.push_back((uuid.to_owned(), request_type.to_owned()));
    }

    /// The statuses taken for one command.
    pub(crate) fn statuses(&self, id: &str, uuid: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let key = (id.to_owned(), uuid.to_owned());
        state.results.get(&key).cloned().unwrap_or_default()
    }
}

async fn answer(
    state: Arc<Mutex<State>>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        return Ok(reply(400, Vec::new()));
    };
    let body = body.to_bytes();
    let proven =
        head.headers.contains_key("client-cert") || head.headers.contains_key("mdm-signature");
    let mut state = state.lock().unwrap();
    Ok(match head.uri.path() {
        "/api/v1/commands" => reply(202, state.enqueue(&body)),
        "/metrics" => reply(200, b"process_cpu_seconds_total 1.5\n".to_vec()),
        _ if !proven || head.method != "PUT" => reply(403, Vec::new()),
        "/mdm/checkin" => reply(200, state.check_in(&body)),
        "/mdm/connect" if state.refuses(&body) => reply(503, Vec::new()),
        "/mdm/connect" => reply(200, state.report(&body)),
        _ => reply(404, Vec::new()),
    })
}

impl State {
    fn enqueue(&mut self, body: &[u8]) -> Vec<u8> {
        let order: serde_json::Value = serde_json::from_slice(body).unwrap();
        let ids = order["targets"]["ids"].as_array().unwrap();
        let request_type = order["command"]["request_type"].as_str().unwrap();
        self.queued += 1;
        let uuid = format!("command-{}", self.queued);
        for id in ids {
            let queue = self.queues.entry(id.as_str().unwrap().to_owned());
            queue
                .or_default()
                .push_back((uuid.clone(), request_type.to_owned()));
        }
        let answer = serde_json::json!({"command_uuid": uuid, "accepted": ids.len()});
        answer.to_string().into_bytes()
    }

    fn check_in(&mut self, body: &[u8]) -> Vec<u8> {
        let keys = read(body);
        let message_type = text(&keys, "MessageType").unwrap();
        let seen = self.check_ins.entry(id(&keys)).or_default();
        seen.push(message_type);
        Vec::new()
    }

    fn refuses(&mut self, body: &[u8]) -> bool {
        let refused = self.refuse_results > 0 && read(body).contains_key("CommandUUID");
        self.refuse_results -= usize::from(refused);
        refused
    }

    fn report(&mut self, body: &[u8]) -> Vec<u8> {
        let keys = read(body);
        let id = id(&keys);
        let status = text(&keys, "Status").unwrap();
        let uuid = text(&keys, "CommandUUID");
        let queue = self.queues.entry(id.clone()).or_default();
        if let Some(uuid) = &uuid {
            let taken = self.results.entry((id, uuid.clone())).or_default();
            taken.push(status.clone());
            self.taken += 1;
            let forgotten = self.forget_every > 0
                && taken.len() == 1
                && self.taken.is_multiple_of(self.forget_every);
            if status != "NotNow" && !forgotten {
                queue.retain(|(queued, _)| queued != uuid);
            }
        }
        let postponed = uuid.filter(|_| status == "NotNow");
        let next = queue
            .iter()
            .find(|(queued, _)| Some(queued) != postponed.as_ref());
        next.map(|(uuid, request_type)| command(uuid, request_type))
            .unwrap_or_default()
    }
}

fn reply(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .body(Full::new(Bytes::from(body)))
        .unwrap()
}

fn read(body: &[u8]) -> Dictionary {
    let value = Value::from_reader_xml(body).unwrap();
    value.into_dictionary().unwrap()
}

fn text(keys: &Dictionary, key: &str) -> Option<String> {
    keys.get(key)?.as_string().map(str::to_owned)
}

fn id(keys: &Dictionary) -> String {
    let udid = text(keys, "UDID").unwrap();
    match text(keys, "UserID") {
        Some(user) => format!("{udid}:{user}"),
        None => udid,
    }
}

fn command(uuid: &str, request_type: &str) -> Vec<u8> {
    let mut command = Dictionary::new();
    command.insert("RequestType".to_owned(), request_type.into());
    let mut top = Dictionary::new();
    top.insert("CommandUUID".to_owned(), uuid.into());
    top.insert("Command".to_owned(), Value::Dictionary(command));
    let mut body = Vec::new();
    Value::Dictionary(top).to_writer_xml(&mut body).unwrap();
    body
}
