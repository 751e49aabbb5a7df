//! What does not decrypt: one answer, to the last octet. A difference of any kind would
//! let strangers ask the RA's key what stands in a message that is not theirs.
//!
//! No clock is held against it here; that no path depends on the plaintext is seen to
//! where the RA opens an envelope (`actors/src/ca/ra.rs`).

use std::collections::BTreeSet;

use openssl::rsa::Padding;
use openssl::symm::{Cipher, Crypter, Mode};
use openssl::x509::X509;
use schema::cms::{ContentCipher, enveloped};
use schema::x509::Certificate;
use sim::ScepReply;

use crate::scep::{BAD_MESSAGE_CHECK, Desk, csr, failed, request, rsa};

/// An envelope made by hand for the RA.
struct Envelope<'d> {
    ra: &'d X509,
    csr: &'d [u8],
}

impl Envelope<'_> {
    fn of(
        &self,
        encrypted_key: &[u8],
        cipher: ContentCipher,
        iv: &[u8],
        content: &[u8],
    ) -> Vec<u8> {
        let der = self.ra.to_der().unwrap();
        let ra = Certificate::parse(&der).unwrap();
        enveloped(&ra, encrypted_key, cipher, iv, content)
    }

    fn rsa(&self, block: &[u8], padding: Padding) -> Vec<u8> {
        let rsa = self.ra.public_key().unwrap().rsa().unwrap();
        let mut sealed = vec![0; 256];
        rsa.public_encrypt(block, &mut sealed, padding).unwrap();
        sealed
    }

    /// What stands in the RSA block, wrongly padded or of another length.
    fn keys(&self, key: &[u8]) -> Vec<Vec<u8>> {
        let block = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut block = vec![0, 2];
            block.resize(256 - key.len() - 1, 0x5a);
            block.push(0);
            block.extend_from_slice(key);
            change(&mut block);
            self.rsa(&block, Padding::NONE)
        };
        let last = 256 - key.len() - 1;
        vec![
            block(&|b| b[1] = 1),
            block(&|b| b[1] = 0),
            block(&|b| b[0] = 1),
            block(&|b| b[2] = 0),
            block(&|b| b[7] = 0),
            block(&|b| b[40] = 0),
            block(&|b| b[last] = 0x5a),
            block(&|b| b[last..].fill(0x5a)),
            // Not its lowest bit, which is but a parity of DES.
            block(&|b| b[255] ^= 0x80),
            self.rsa(&key[1..], Padding::PKCS1),
            self.rsa(&[key, b"x"].concat(), Padding::PKCS1),
            self.rsa(&[key, key].concat(), Padding::PKCS1),
            self.rsa(b"", Padding::PKCS1),
            self.rsa(key, Padding::PKCS1_OAEP),
            vec![0; 256],
            vec![0xff; 256],
            vec![1; 255],
            vec![1; 257],
            vec![1],
            vec![],
        ]
    }

    /// What the right key opens to nothing of use.
    fn contents(&self, cipher: Cipher, key: &[u8], iv: &[u8]) -> Vec<Vec<u8>> {
        let block = cipher.block_size();
        let sealed = |plain: &[u8]| {
            let mut crypter = Crypter::new(cipher, Mode::Encrypt, key, Some(iv)).unwrap();
            crypter.pad(false);
            let mut out = vec![0; plain.len() + block];
            let mut n = crypter.update(plain, &mut out).unwrap();
            n += crypter.finalize(&mut out[n..]).unwrap();
            out.truncate(n);
            out
        };
        let padded = |csr: &[u8], pad: u8| {
            let fill = block - csr.len() % block;
            let last = [vec![pad; fill], vec![pad]].concat();
            sealed(&[csr, &last[..fill]].concat())
        };
        let right = |csr: &[u8]| padded(csr, u8::try_from(block - csr.len() % block).unwrap());
        let mut broken = self.csr.to_vec();
        *broken.last_mut().unwrap() ^= 1;
        let good = right(self.csr);
        let mut last = good.clone();
        *last.last_mut().unwrap() ^= 1;
        let mut all = vec![
            padded(self.csr, 0),
            padded(self.csr, u8::try_from(block + 1).unwrap()),
            padded(self.csr, 0xff),
            good[..good.len() - block].to_vec(),
            good[..good.len() - 1].to_vec(),
            good[..block].to_vec(),
            [&good[..], &good[..1]].concat(),
            vec![],
            last,
            right(b""),
            right(b"no request"),
            right(&broken),
            right(&self.csr[..self.csr.len() - 1]),
            right(&[self.csr, b"x"].concat()),
            right(&[0x30; 300]),
        ];
        for at in (0..good.len()).step_by(97) {
            let mut bent = good.clone();
            bent[at] ^= 0x80;
            all.push(bent);
        }
        all
    }
}

#[actix_web::test]
async fn whatever_does_not_decrypt_to_a_request_is_told_the_same_octets() {
    let desk = Desk::open().await;
    let key = rsa(2048);
    let challenge = desk.challenge().await;
    let request = request(&key, csr(&key, &challenge));
    let envelope = Envelope {
        ra: &desk.authority.ra,
        csr: &request.csr,
    };
    let mut wrong = vec![b"".to_vec(), b"garbage".to_vec(), vec![0x30; 300]];
    for (cipher, named) in [
        (Cipher::aes_128_cbc(), ContentCipher::Aes128),
        (Cipher::aes_192_cbc(), ContentCipher::Aes192),
        (Cipher::aes_256_cbc(), ContentCipher::Aes256),
        (Cipher::des_ede3_cbc(), ContentCipher::Des3),
    ] {
        let content_key: Vec<u8> = (1..=u8::try_from(cipher.key_len()).unwrap()).collect();
        let iv = vec![9; cipher.iv_len().unwrap()];
        let sound = envelope.rsa(&content_key, Padding::PKCS1);
        let good = openssl::symm::encrypt(cipher, &content_key, Some(&iv), &request.csr).unwrap();
        for encrypted in envelope.keys(&content_key) {
            wrong.push(envelope.of(&encrypted, named, &iv, &good));
        }
        for content in envelope.contents(cipher, &content_key, &iv) {
            wrong.push(envelope.of(&sound, named, &iv, &content));
        }
        wrong.push(envelope.of(&sound, named, &iv[1..], &good));
        wrong.push(envelope.of(&sound, named, &[], &good));
    }
    let mut answers = BTreeSet::new();
    for wrong in &wrong {
        let message = request.encode_around(wrong).unwrap();
        let reply = desk.client.post(message).await.unwrap();
        let opened = request.open(&reply, &desk.authority.ra).unwrap();
        assert_eq!(opened, failed(BAD_MESSAGE_CHECK));
        answers.insert(reply);
    }
    println!(
        "{} envelopes that do not open, {} answer",
        wrong.len(),
        answers.len()
    );
    assert_eq!(answers.len(), 1);
    // The hand that made them can make a good one, and nothing was spent.
    let (content_key, iv) = ([7; 16], [9; 16]);
    let cipher = Cipher::aes_128_cbc();
    let good = openssl::symm::encrypt(cipher, &content_key, Some(&iv), &request.csr).unwrap();
    let sealed = envelope.rsa(&content_key, Padding::PKCS1);
    let good = envelope.of(&sealed, ContentCipher::Aes128, &iv, &good);
    let reply = desk
        .client
        .post(request.encode_around(&good).unwrap())
        .await
        .unwrap();
    let reply = request.open(&reply, &desk.authority.ra).unwrap();
    assert!(matches!(reply, ScepReply::Issued(_)));
}
