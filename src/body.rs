//! The body of a device's request: read up to a cap, against a deadline, and admitted as
//! it comes. Called by every door that devices and strangers send something to.

use std::time::Duration;

use actix_web::http::header::{self, HeaderMap};
use actix_web::web;
use actors::admission::{Permit, Weight};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use tokio::time::timeout;

use crate::app::App;
use crate::error::DeviceError;

/// A body as it was read.
pub(crate) struct Body {
    /// Its bytes; only the beginning when it was cut.
    pub(crate) bytes: Bytes,
    /// Longer than its cap: the rest was drained and dropped.
    pub(crate) cut: bool,
    /// Held while it is worked on, when it is a long one.
    pub(crate) permit: Option<Permit>,
}

/// The length the head announces, if it does.
///
/// # Errors
/// [`DeviceError::TooLong`] when that is more than is ever taken in.
pub(crate) fn announced(headers: &HeaderMap, cap: usize) -> Result<Option<usize>, DeviceError> {
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length > DRAINED_AT_MOST => Err(DeviceError::TooLong(cap)),
        length => Ok(length),
    }
}

/// Reads a body up to a cap and against a deadline. What is long is admitted as it comes,
/// at once when its length is announced; what is over the cap is drained, so that the
/// device hears the answer.
pub(crate) async fn read(
    headers: &HeaderMap,
    mut payload: web::Payload,
    cap: usize,
    app: &App,
) -> Result<Body, DeviceError> {
    let announced = announced(headers, cap)?;
    let admit = |bytes| {
        let permit = app.admission.admit(Weight::Full, bytes);
        permit.ok_or(DeviceError::Overloaded)
    };
    let mut permit = match announced {
        Some(announced) if announced <= SHORT => None,
        Some(announced) => Some(admit(announced.min(cap))?),
        None => Some(admit(SHORT)?),
    };
    let whole = async {
        let mut body = BytesMut::new();
        let mut length = 0;
        while let Some(chunk) = payload.next().await {
            let chunk = chunk.map_err(|_| DeviceError::Incomplete)?;
            length += chunk.len();
            if length > DRAINED_AT_MOST {
                return Err(DeviceError::TooLong(cap));
            }
            if length > cap {
                body.truncate(KEPT_OF_CUT);
            } else if body.is_empty() && Some(length) == announced {
                return Ok((chunk, false));
            } else {
                if permit.as_mut().is_some_and(|permit| !permit.covers(length)) {
                    return Err(DeviceError::Overloaded);
                }
                body.extend_from_slice(&chunk);
            }
        }
        Ok((body.freeze(), length > cap))
    };
    let deadline = Duration::from_secs(app.config.limits.body_seconds);
    let (bytes, cut) = timeout(deadline, whole)
        .await
        .map_err(|_| DeviceError::TooSlow)??;
    Ok(Body { bytes, cut, permit })
}

/// Takes in what is left of a short body that is refused, for a moment, so that its
/// sender hears why; keeps nothing of it.
pub(crate) async fn drain(mut payload: web::Payload) {
    let rest = async {
        let mut length = 0;
        while let Some(Ok(chunk)) = payload.next().await {
            length += chunk.len();
            if length > SHORT {
                break;
            }
        }
    };
    // Whoever is slower does without the answer.
    let _ = timeout(DRAINED_FOR, rest).await;
}

/// What is kept of a report over its cap.
const KEPT_OF_CUT: usize = 1 << 20;
const DRAINED_AT_MOST: usize = 128 << 20;
const DRAINED_FOR: Duration = Duration::from_secs(2);
/// Up to here a body needs no leave to be read, and is worked on at once.
pub(crate) const SHORT: usize = 64 << 10;
