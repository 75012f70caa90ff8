//! Requests and answers of HTTP/1.1 for a protocol that stands on it.

use super::answer::Answer;
use super::decode::Coding;
use super::fields;
use super::origin::Origins;
use super::recipe::{Fill, Recipe};
pub(crate) use super::version::SSE_USER;
use crate::dial::Host;
use crate::protocol::{Fault, PrepareError, Want};
use ld_shared::plan::ScenarioPlan;
use ld_shared::reply::Headers;
use ld_shared::sample::Failure;
use ld_shared::scope::{Bindings, Scope};
use ld_shared::template::Template;
use serde_json::{Map, Value};
use std::sync::Arc;

/// JSON Schema of one of HTTP's fields.
pub(crate) fn schema(field: &str) -> Value {
    super::schema::field(field)
}

/// What requests of one scenario on one core share.
#[derive(Default)]
pub(crate) struct Requests {
    origins: Origins,
}

/// A request before its placeholders are filled in.
pub(crate) struct Prepared {
    recipe: Recipe,
    /// The URL as written.
    pub(crate) written: Arc<str>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
    pub(crate) is_https: bool,
    /// The peer's certificate is checked.
    pub(crate) verify: bool,
}

impl Requests {
    /// Every fault of the fields that are HTTP's, for a task of `user`.
    pub(crate) fn check(fields: &Map<String, Value>, scenario: &ScenarioPlan, user: &str) -> Vec<Fault> {
        fields::parse(fields, scenario, user).err().unwrap_or_default()
    }

    /// Compiles the request of a task of `user`; `verify`: whether certificates are checked if it
    /// does not say.
    pub(crate) fn compile(
        &self,
        fields: &Map<String, Value>,
        scenario: &ScenarioPlan,
        user: &str,
        verify: bool,
        bindings: &Bindings,
    ) -> Result<Prepared, PrepareError> {
        let fields = fields::parse(fields, scenario, user).map_err(|faults| PrepareError::of(&faults))?;
        let (host, verify) = (scenario.host.as_deref(), fields.verify.unwrap_or(verify));
        let recipe = Recipe::compile(&fields, host, verify, bindings, &self.origins).map_err(PrepareError)?;
        let written = Template::compile_name(&fields.url, bindings).into();
        Ok(Prepared { recipe, written })
    }

    /// Writes the request into `out`, and says where it goes.
    pub(crate) fn fill(
        &self,
        prepared: &Prepared,
        bindings: &Bindings,
        scope: &mut Scope,
        out: &mut Vec<u8>,
    ) -> Result<Target, Failure> {
        let mut fill = Fill { bindings, scope, origins: &self.origins };
        let origin = prepared.recipe.fill(&mut fill, None, out)?;
        let (host, port) = (origin.dialled.clone(), origin.port);
        Ok(Target { host, port, is_https: origin.is_https, verify: origin.verify })
    }

    /// The URL as reports show it.
    pub(crate) fn url(&self, prepared: &Prepared, bindings: &Bindings, scope: &mut Scope) -> Arc<str> {
        let mut fill = Fill { bindings, scope, origins: &self.origins };
        prepared.recipe.url(&mut fill).map_or_else(|| Arc::clone(&prepared.written), Arc::from)
    }
}

impl Prepared {
    /// Indices of the data sources that it names.
    pub(crate) fn sources(&self) -> Vec<u32> {
        self.recipe.sources()
    }
}

/// An answer whose body is looked at as it comes.
#[derive(Debug)]
pub(crate) struct Streamed(Answer);

impl Streamed {
    /// `failed_body`: how many bytes of the body of a failed answer are kept.
    pub(crate) fn new(failed_body: usize) -> Self {
        Self(Answer::new(false, Want { headers: true, body: usize::MAX, failed_body }))
    }

    /// Takes the bytes of a read. `true`: the answer is complete.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Result<bool, Failure> {
        self.0.feed(bytes)
    }

    /// The peer closed the connection.
    pub(crate) fn end(&mut self) -> Result<(), Failure> {
        self.0.end()
    }

    /// Its status; 0 until the head is there.
    pub(crate) fn status(&self) -> u16 {
        self.0.status
    }

    pub(crate) fn is_compressed(&self) -> bool {
        self.0.coding != Coding::Identity
    }

    /// Takes its headers.
    pub(crate) fn take_headers(&mut self) -> Headers {
        Headers::from_lines(std::mem::take(&mut self.0.headers))
    }

    /// What came of its body since the caller last emptied it.
    pub(crate) fn body(&mut self) -> &mut Vec<u8> {
        &mut self.0.body
    }

    /// Length of the body so far, transfer coding removed.
    pub(crate) fn body_bytes(&self) -> u64 {
        self.0.body_bytes
    }

    /// Bytes received on the wire.
    pub(crate) fn received(&self) -> u64 {
        self.0.received
    }
}
