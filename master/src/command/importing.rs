//! What commands of importers have in common: the load of the document that they make, and the way
//! of notes to people.

use super::CommandError;
use crate::app::App;
use crate::import::{ImportError, Imported, Load};
use crate::script::{Kind, Parameter};
use serde::Deserialize;
use serde_json::Value;

/// Keys of `LD_start_test` for the document.
#[derive(Deserialize)]
pub(super) struct LoadArguments {
    user: Option<String>,
    user_count: Option<Value>,
    spawn_rate: Option<Value>,
    test_time: Option<Value>,
}

pub(super) const USER: Parameter =
    Parameter::new("user", Kind::Text).about("Key of the users that run the tasks; default `fast_http_user`");
pub(super) const USER_COUNT: Parameter = Parameter::new("user_count", Kind::Integer).about("`user_count` of the test");
pub(super) const SPAWN_RATE: Parameter =
    Parameter::new("spawn_rate", Kind::Number).about("`spawn_rate` of the test; default 5");
pub(super) const TEST_TIME: Parameter =
    Parameter::new("test_time", Kind::Any).about("`test_time` of the test; default 60");

impl LoadArguments {
    /// With the seed's defaults, and `users` for `user_count`.
    pub(super) fn with_users(self, users: u64) -> Load {
        Load {
            user: self.user.unwrap_or_else(|| "fast_http_user".into()),
            user_count: self.user_count.unwrap_or_else(|| users.into()),
            spawn_rate: self.spawn_rate.unwrap_or_else(|| 5.into()),
            test_time: self.test_time.unwrap_or_else(|| 60.into()),
        }
    }
}

/// Tells people what an import could not take over.
pub(super) fn tell(app: &App, imported: &Imported) {
    for note in &imported.notes {
        app.console.note(&format!("note: {note}"));
    }
}

impl From<ImportError> for CommandError {
    fn from(error: ImportError) -> Self {
        Self::of(error.kind(), &error)
    }
}
