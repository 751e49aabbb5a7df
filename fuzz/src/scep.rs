//! The SCEP server with a real store and a real RA: decryption, judging, issuing.

use actors::ca::{CaKey, DeviceCa};
use actors::expiry::Expiries;
use actors::scep::Scep;
use actors::store::StoreOptions;
use actors::{Clock, Store};
use openssl::x509::X509;
use schema::UnixMillis;
use sim::{Identity, KeyPool, ScepReply, ScepRequest, scep_signer};

use crate::Reader;

const NOW: UnixMillis = UnixMillis(1_800_000_000_000);

struct Server {
    scep: Scep,
    ra: X509,
    signer: Identity,
    runtime: tokio::runtime::Runtime,
    _directory: tempfile::TempDir,
}

/// A whole message, or what is inside of one that is signed and sealed as it should be.
/// No answer may hold a certificate: nobody guesses the 192 random bits of a challenge.
pub fn answer() -> Reader {
    let server = Server::open();
    Box::new(move |data| {
        let Some((how, data)) = data.split_first() else {
            return;
        };
        let request = |kind: &str| {
            ScepRequest::new(kind, data.to_vec(), server.signer.clone()).expect("randomness")
        };
        let sealed = |request: &ScepRequest| request.encode(&server.ra).ok();
        match how % 6 {
            0 => server.answers(Some(data.to_vec()), None),
            1 => server.asked(request("19"), sealed),
            2 => server.asked(request("17"), sealed),
            3 => server.asked(request("19"), |request| request.encode_around(data).ok()),
            4 => server.asked(request("19"), |request| request.sign(b"content", data).ok()),
            _ => server.asked(request(&String::from_utf8_lossy(data)), sealed),
        }
    })
}

impl Server {
    fn asked(&self, request: ScepRequest, encode: impl Fn(&ScepRequest) -> Option<Vec<u8>>) {
        self.answers(encode(&request), Some(&request));
    }

    fn answers(&self, message: Option<Vec<u8>>, request: Option<&ScepRequest>) {
        let Some(message) = message else { return };
        let answer = self.scep.answer(message.into());
        let answer = self.runtime.block_on(answer);
        if let (Ok(reply), Some(request)) = (answer, request) {
            let told = request.open(&reply, &self.ra);
            assert!(
                !matches!(told, Ok(ScepReply::Issued(_))),
                "a certificate for nothing"
            );
        }
    }

    fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path();
        let clock = Clock::manual(NOW);
        let mut options = StoreOptions::new(path);
        options.reserve_bytes = 0;
        let store = Store::open(options, clock.clone()).expect("a store");
        let ca = DeviceCa::open(path, CaKey::P256, 30).expect("a CA");
        let scep = Scep::open(path, ca, store, clock, Expiries::default(), 3).expect("a server");
        let key = KeyPool::growing(1).deal().expect("a key");
        let ra = std::fs::read(path.join("ra.pem")).expect("an RA");
        Self {
            scep,
            ra: X509::from_pem(&ra).expect("a certificate"),
            signer: scep_signer(&key).expect("a signer"),
            runtime: tokio::runtime::Builder::new_current_thread()
                .build()
                .expect("a runtime"),
            _directory: directory,
        }
    }
}
