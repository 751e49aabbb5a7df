//! Pages: `{"items": [...], "next": cursor|null}`, with `limit` and `cursor`.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::Problem;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; null on the last.
    pub next: Option<String>,
}

/// Which page is asked for. Unknown cursors are refused.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Asked {
    /// At most so many items: 1 to 1000, 100 when absent.
    pub limit: Option<usize>,
    /// `next` of the page before.
    pub cursor: Option<String>,
}

impl Asked {
    /// The number of items asked for.
    ///
    /// # Errors
    /// 400 outside of 1 to 1000.
    pub fn limit(&self) -> Result<usize, Problem> {
        match self.limit {
            None => Ok(100),
            Some(limit @ 1..=1000) => Ok(limit),
            Some(_) => Err(Problem::bad_request("bad_limit", "limit must be 1 to 1000")),
        }
    }

    /// The number behind which the page begins.
    ///
    /// # Errors
    /// 400 for a cursor that is not one of this kind.
    pub fn after(&self, kind: u8) -> Result<Option<u64>, Problem> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
        bytes
            .as_deref()
            .and_then(|bytes| bytes.split_first())
            .filter(|(of, _)| **of == kind)
            .and_then(|(_, number)| number.try_into().ok())
            .map(|number| Some(u64::from_be_bytes(number)))
            .ok_or_else(|| Problem::bad_request("bad_cursor", "the cursor is not of this list"))
    }
}

/// The cursor behind a number.
#[must_use]
pub fn cursor(kind: u8, number: u64) -> String {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&number.to_be_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Cursors of device lists.
pub const DEVICES: u8 = b'd';
/// Cursors of enrollment links.
pub const LINKS: u8 = b'l';
/// Cursors of a device's commands.
pub const COMMANDS: u8 = b'c';
