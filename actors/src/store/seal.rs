//! Sealing: every command body, report body and secret is encrypted before it is
//! written, with a key that lives outside the store.
//!
//! AES-256-GCM-SIV with a random nonce; table and key of the row are the associated
//! data, so that a sealed value cannot be moved to another row. Values over 1 KiB
//! are compressed first. Called by the store alone.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM_SIV, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hmac;

use super::StoreError;
use super::disk::Disk;

/// Bytes of the sealing key.
pub(super) const KEY_BYTES: usize = 32;

/// Seals and opens values.
pub(super) struct Sealer {
    key: LessSafeKey,
    derive: hmac::Key,
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer(..)")
    }
}

/// A value ready to be sealed, compressed where that helps: the costly part of sealing
/// a large body, which may run anywhere.
#[derive(Clone)]
pub struct Packed(Vec<u8>);

impl Packed {
    /// Packs a value.
    #[must_use]
    pub fn of(plain: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(NONCE_LEN + plain.len().min(64 << 10) + 32);
        let packed = if plain.len() > COMPRESS_OVER {
            zstd::bulk::compress(plain, 1)
                .ok()
                .filter(|packed| packed.len() < plain.len())
        } else {
            None
        };
        match packed {
            Some(packed) => {
                bytes.push(PACKED);
                bytes.extend_from_slice(&u32::try_from(plain.len()).unwrap_or(0).to_le_bytes());
                bytes.extend_from_slice(&packed);
            }
            None => {
                bytes.push(PLAIN);
                bytes.extend_from_slice(plain);
            }
        }
        Self(bytes)
    }
}

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} bytes)", self.0.len())
    }
}

/// Which row a sealed value belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) enum Place<'a> {
    /// A command's body, by its uuid.
    Command(&'a str),
    /// A body in the journal or a segment, by channel.
    Journal(u32),
    /// A secret, by channel and kind.
    Secret(u32, u8),
    /// What a channel told, by channel and kind.
    Inventory(u32, u8),
    /// A push certificate, by topic.
    PushCertificate(&'a str),
    /// A key that waits for its push certificate, by the hash of its public key.
    PushKey(&'a [u8]),
    /// A private file of the data directory in a backup, by name.
    File(&'a str),
}

impl Place<'_> {
    fn bytes(self) -> Vec<u8> {
        match self {
            Self::Command(uuid) => [b"command\0", uuid.as_bytes()].concat(),
            Self::Journal(channel) => [&b"journal\0"[..], &channel.to_be_bytes()].concat(),
            Self::Secret(channel, kind) => {
                [&b"secret\0"[..], &channel.to_be_bytes(), &[kind]].concat()
            }
            Self::Inventory(channel, kind) => {
                [&b"inventory\0"[..], &channel.to_be_bytes(), &[kind]].concat()
            }
            Self::PushCertificate(topic) => [b"push_certificate\0", topic.as_bytes()].concat(),
            Self::PushKey(hash) => [b"push_key\0", hash].concat(),
            Self::File(name) => [b"file\0", name.as_bytes()].concat(),
        }
    }
}

impl Sealer {
    /// Takes a key of 32 bytes.
    ///
    /// # Errors
    /// [`StoreError::SealingKey`] when it has another length.
    pub(super) fn new(key: &[u8]) -> Result<Self, StoreError> {
        let sealing = UnboundKey::new(&AES_256_GCM_SIV, key)
            .map_err(|_| StoreError::SealingKey("it must be 32 bytes".into()))?;
        let derive = hmac::Key::new(hmac::HMAC_SHA256, key);
        let derive = hmac::sign(&derive, b"reveille derived secrets");
        Ok(Self {
            key: LessSafeKey::new(sealing),
            derive: hmac::Key::new(hmac::HMAC_SHA256, derive.as_ref()),
        })
    }

    /// A secret that follows from what it is for: 32 bytes nobody can guess without the
    /// sealing key, the same each time.
    pub(super) fn derive(&self, what_for: &[u8]) -> [u8; 32] {
        let mut secret = [0; 32];
        secret.copy_from_slice(hmac::sign(&self.derive, what_for).as_ref());
        secret
    }

    /// Reads the key file; makes one when `create` and there is none. A new one is durable
    /// before it has its name and its name is before this returns, so the key is never
    /// younger than the store it seals.
    ///
    /// # Errors
    /// [`StoreError::SealingKey`] when it is missing, unreadable or no key.
    pub(super) fn from_file(
        disk: &dyn Disk,
        path: &Path,
        create: bool,
    ) -> Result<Self, StoreError> {
        let fail = |why: io::Error| StoreError::SealingKey(format!("{}: {why}", path.display()));
        if !disk.exists(path).map_err(fail)? {
            if !create {
                return Err(StoreError::SealingKey(format!(
                    "{} is missing; without it what the store holds cannot be read",
                    path.display()
                )));
            }
            let mut key = [0_u8; KEY_BYTES];
            random(&mut key)?;
            create_key(disk, path, &key).map_err(fail)?;
        }
        Self::new(&disk.read(path).map_err(fail)?)
    }

    /// Seals a value for its place: nonce, then ciphertext with tag.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the machine gives no randomness.
    pub(super) fn seal(&self, place: Place<'_>, plain: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.seal_packed(place, &Packed::of(plain))
    }

    /// Seals a value that was packed before.
    ///
    /// # Errors
    /// [`StoreError::Broken`] when the machine gives no randomness.
    pub(super) fn seal_packed(
        &self,
        place: Place<'_>,
        packed: &Packed,
    ) -> Result<Vec<u8>, StoreError> {
        let mut nonce = [0_u8; NONCE_LEN];
        random(&mut nonce)?;
        let mut sealed = Vec::with_capacity(NONCE_LEN + packed.0.len() + AES_256_GCM_SIV.tag_len());
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(&packed.0);
        let (_, body) = sealed.split_at_mut(NONCE_LEN);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(place.bytes()),
                body,
            )
            .map_err(|_| StoreError::broken("sealing failed"))?;
        sealed.extend_from_slice(tag.as_ref());
        Ok(sealed)
    }

    /// Opens a sealed value.
    ///
    /// # Errors
    /// [`StoreError::Unsealable`] when it was sealed with another key, for another place, or changed.
    pub(super) fn open(&self, place: Place<'_>, sealed: &[u8]) -> Result<Vec<u8>, StoreError> {
        let (nonce, rest) = sealed
            .split_at_checked(NONCE_LEN)
            .ok_or(StoreError::Unsealable)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| StoreError::Unsealable)?;
        let mut buffer = rest.to_vec();
        let plain = self
            .key
            .open_in_place(nonce, Aad::from(place.bytes()), &mut buffer)
            .map_err(|_| StoreError::Unsealable)?;
        match plain.split_first() {
            Some((&PLAIN, plain)) => Ok(plain.to_vec()),
            Some((&PACKED, rest)) => {
                let (length, packed) = rest
                    .split_first_chunk::<4>()
                    .ok_or(StoreError::Unsealable)?;
                zstd::bulk::decompress(packed, u32::from_le_bytes(*length) as usize)
                    .map_err(|_| StoreError::Unsealable)
            }
            _ => Err(StoreError::Unsealable),
        }
    }
}

fn create_key(disk: &dyn Disk, path: &Path, key: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    if disk.exists(&beside)? {
        // Of a start that was cut off.
        disk.remove(&beside)?;
    }
    let mut file = disk.append(&beside)?;
    file.append(key)?;
    file.sync()?;
    disk.rename(&beside, path)?;
    disk.sync_directory(path.parent().unwrap_or(Path::new("")))
}

/// Fills a buffer from the machine's source of randomness.
///
/// # Errors
/// [`StoreError::Broken`] when it gives none.
pub(super) fn random(buffer: &mut [u8]) -> Result<(), StoreError> {
    aws_lc_rs::rand::fill(buffer).map_err(|_| StoreError::broken("no randomness"))
}

const PLAIN: u8 = 0;
const PACKED: u8 = 1;
const COMPRESS_OVER: usize = 1024;

#[cfg(test)]
mod tests {
    use super::super::disk::LocalDisk;
    use super::*;

    #[test]
    fn what_is_sealed_opens_only_in_its_place_and_with_its_key() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        for plain in [&b""[..], b"short", &[b'x'; 100_000]] {
            let sealed = sealer.seal(Place::Journal(1), plain).unwrap();
            assert_eq!(sealer.open(Place::Journal(1), &sealed).unwrap(), plain);
            assert!(sealer.open(Place::Journal(2), &sealed).is_err());
            assert!(
                Sealer::new(&[8; 32])
                    .unwrap()
                    .open(Place::Journal(1), &sealed)
                    .is_err()
            );
            let mut changed = sealed;
            *changed.last_mut().unwrap() ^= 1;
            assert!(sealer.open(Place::Journal(1), &changed).is_err());
        }
    }

    #[test]
    fn the_key_file_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seal.key");
        assert!(Sealer::from_file(&LocalDisk, &path, false).is_err());
        let sealed = Sealer::from_file(&LocalDisk, &path, true)
            .unwrap()
            .seal(Place::Journal(1), b"x")
            .unwrap();
        assert_eq!(
            Sealer::from_file(&LocalDisk, &path, false)
                .unwrap()
                .open(Place::Journal(1), &sealed)
                .unwrap(),
            b"x"
        );
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
}
