//! What a check found: one line for people, one object for programs.

use serde::Serialize;

/// The outcome of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// What was looked at.
    pub(super) check: &'static str,
    /// How it is.
    pub(super) outcome: Outcome,
    /// What was found.
    pub(super) detail: String,
    /// What to do, unless all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advice: Option<String>,
}

/// How it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    /// As it should be.
    Ok,
    /// It works, but deserves a look.
    Warn,
    /// It keeps the server from its work, or endangers it.
    Fail,
}

impl Finding {
    pub(super) fn ok(check: &'static str, detail: impl Into<String>) -> Self {
        Self {
            check,
            outcome: Outcome::Ok,
            detail: detail.into(),
            advice: None,
        }
    }

    pub(super) fn warn(
        check: &'static str,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Warn,
            advice: Some(advice.into()),
            ..Self::ok(check, detail)
        }
    }

    pub(super) fn fail(
        check: &'static str,
        detail: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            outcome: Outcome::Fail,
            advice: Some(advice.into()),
            ..Self::ok(check, detail)
        }
    }

    /// The line for people.
    pub(super) fn line(&self) -> String {
        let word = match self.outcome {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail => "fail",
        };
        let advice = self.advice.as_deref().filter(|advice| !advice.is_empty());
        let advice = advice.map_or_else(String::new, |advice| format!(" -> {advice}"));
        format!("{word:<4}  {:<16}  {}{advice}", self.check, self.detail)
    }
}
