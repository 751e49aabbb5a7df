//! Backups: the store and its keys as they are now, streamed as one archive.
//!
//! Written by a thread of its own into a short pipe, so that a slow client costs neither
//! memory nor a worker; one that takes nothing for a minute is given up.

use std::io::{self, Write};
use std::time::Duration;

use actix_web::http::header::CONTENT_DISPOSITION;
use actix_web::{HttpRequest, HttpResponse, web};
use actors::Store;
use actors::store::{Backup, BackupError};
use bytes::Bytes;
use futures_util::stream;
use schema::UnixMillis;
use serde::Deserialize;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use utoipa::ToSchema;

use super::json::strict_json;
use super::rendering::time;
use crate::app::App;
use crate::auth::{Admin, Scope};
use crate::error::{Problem, Refusals};

/// A backup to be made.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct NewBackup {
    /// Put the sealing key in: whoever has the backup then has everything. Needs the scope
    /// `secrets` too.
    pub with_sealing_key: bool,
}

/// Makes a backup of the store as it is now and streams it. The connection breaks when it
/// fails; an archive that came to its end is whole.
#[utoipa::path(post, path = "/api/v1/backups", tag = "system",
    request_body(content = Option<NewBackup>),
    responses(
        (status = 200, description = "The archive: tar in zstd", body = Vec<u8>, content_type = "application/zstd"),
        (status = 400, description = "The body cannot be read", body = Problem),
        (status = 409, description = "Another backup is being made", body = Problem),
        (status = 415, description = "Not JSON", body = Problem),
        (status = 422, description = "A field is at fault", body = Problem),
        Refusals))]
pub async fn create(
    admin: Admin,
    app: web::Data<App>,
    request: HttpRequest,
    body: web::Bytes,
) -> Result<HttpResponse, Problem> {
    admin.demand(Scope::Admin)?;
    let wanted: NewBackup = match body.is_empty() {
        true => NewBackup::default(),
        false => strict_json(&request, &body)?,
    };
    if wanted.with_sealing_key {
        admin.demand(Scope::Secrets)?;
    }
    let backup = app.store.backup().await?;
    let name = file_name(backup.made());
    let (by, key) = (admin.principal().to_owned(), wanted.with_sealing_key);
    tracing::warn!(by, with_sealing_key = key, "a backup is being made");
    let (into, chunks) = mpsc::channel(CHUNKS);
    let store = app.store.clone();
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || write(backup, key, &store, Pipe::new(into, runtime)));
    let chunks = stream::unfold(chunks, async |mut chunks: Chunks| {
        chunks.recv().await.map(|chunk| (chunk, chunks))
    });
    Ok(HttpResponse::Ok()
        .content_type("application/zstd")
        .insert_header((
            CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ))
        .streaming(Box::pin(chunks)))
}

/// The file a backup made at this time is named.
#[must_use]
pub fn file_name(made: UnixMillis) -> String {
    let made = time(made).replace(['-', ':'], "");
    format!("reveille-{made}.tar.zst")
}

fn write(backup: Backup, with_key: bool, store: &Store, mut pipe: Pipe) {
    let made = backup.made();
    let written = backup.write(&mut pipe, with_key);
    // Before the client sees the end: what it holds then is counted as the last backup.
    let noted = written.and_then(|manifest| {
        pipe.runtime.block_on(store.backed_up(made))?;
        Ok(manifest)
    });
    match noted {
        Ok(manifest) => tracing::info!(bytes = manifest.bytes(), "the backup is made"),
        Err(why) => pipe.fail(&why),
    }
}

type Chunk = Result<Bytes, io::Error>;
type Chunks = mpsc::Receiver<Chunk>;

/// What is written goes to the client, chunk by chunk.
struct Pipe {
    into: mpsc::Sender<Chunk>,
    runtime: Handle,
    chunk: Vec<u8>,
}

impl Pipe {
    fn new(into: mpsc::Sender<Chunk>, runtime: Handle) -> Self {
        Self {
            into,
            runtime,
            chunk: Vec::with_capacity(CHUNK),
        }
    }

    fn send(&self, chunk: Chunk) -> io::Result<()> {
        let sent = self.into.send_timeout(chunk, PATIENCE);
        let why = match self.runtime.block_on(sent) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::SendTimeoutError::Timeout(_)) => "the client took nothing",
            Err(mpsc::error::SendTimeoutError::Closed(_)) => "the client went away",
        };
        Err(io::Error::new(io::ErrorKind::BrokenPipe, why))
    }

    /// Breaks the connection, so that nobody takes what came for all of it.
    fn fail(&self, why: &BackupError) {
        tracing::error!(error = %why, "the backup failed");
        let _ = self.send(Err(io::Error::other("the backup failed")));
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(bytes);
        if self.chunk.len() >= CHUNK {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.chunk.is_empty() {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        self.send(Ok(chunk.into()))
    }
}

/// Bytes sent at once, and how many of these wait.
const CHUNK: usize = 256 << 10;
const CHUNKS: usize = 4;
const PATIENCE: Duration = Duration::from_secs(60);
