//! OpenSSL's legacy provider, loaded only while an old file is read.
//!
//! Keychain exports PKCS#12 with RC2-40 and old keys use DES, which OpenSSL 3
//! moved out of its default provider.

use openssl::error::ErrorStack;
use openssl::provider::Provider;

/// Tries as is, then once more with the legacy provider if there is one.
pub(super) fn with_legacy<T>(attempt: impl Fn() -> Result<T, ErrorStack>) -> Result<T, ErrorStack> {
    attempt().or_else(|refused| match Provider::try_load(None, "legacy", true) {
        Ok(_while_held) => attempt(),
        Err(_) => Err(refused),
    })
}

/// Whether any error of the stack gives `reason`.
pub(super) fn has_reason(stack: &ErrorStack, reason: &str) -> bool {
    stack
        .errors()
        .iter()
        .any(|error| error.reason() == Some(reason))
}
