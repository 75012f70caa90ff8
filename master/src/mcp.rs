//! MCP: tools of load tests for assistants, over stdin and stdout. This process is the master.
//!
//! The seed's tools under its names, and more that hold a test while it goes on. Documents go through
//! the queue that all surfaces share, under the policy of callers from outside. `docs/mcp.md` tells
//! users all of it.

mod audit;
mod calls;
mod progress;
mod resources;
mod tools;
mod wire;
mod work;

use crate::app::App;
use crate::remote::{Caller, Policy};
use audit::{Audit, Called};
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, CustomRequest, CustomResult, ErrorCode,
    Implementation, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult, PaginatedRequestParams,
    ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer, ServerInitializeError, serve_server};
use rmcp::{ErrorData, ServerHandler};
use serde_json::Value;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use wire::Wire;
use work::Call;

const INSTRUCTIONS: &str = "Load tests with LoadDensity. `validate` a document before `run_action_json` or `start`; its \
    schema is the resource loaddensity://schema. `run_test` runs one test to its end and tells its progress; `start` \
    returns at once, and `status`, `adjust` and `stop` go on from there. A verdict of `inconclusive` means that the \
    generator, not the target, was the limit. Targets, users, rate and time are bounded by how ld-master was started.";

/// A server that may be talked to.
pub struct Server(Assistant);

/// One assistant's side.
struct Assistant {
    /// On its behalf.
    app: App,
    audit: Option<Audit>,
    /// The process is to end: what runs is drained.
    ending: CancellationToken,
}

impl Server {
    /// For an assistant that may do what `policy` allows. Calls are written down in `audit`.
    ///
    /// # Errors
    ///
    /// A log that cannot be written.
    pub fn new(app: &App, policy: Option<Arc<Policy>>, audit: Option<PathBuf>) -> io::Result<Self> {
        let audit = audit.map(Audit::open).transpose()?;
        if let Some(audit) = &audit {
            app.console.note(&format!("calls are written down in {}", audit.path().display()));
        }
        let app = app.on_behalf_of(Arc::new(Caller::new("mcp", policy)));
        Ok(Self(Assistant { app, audit, ending: CancellationToken::new() }))
    }

    /// Ends it when cancelled: what runs is drained, what was asked is answered.
    pub fn ending(&self) -> CancellationToken {
        self.0.ending.clone()
    }

    /// Talks until the end of input.
    ///
    /// # Errors
    ///
    /// A client that breaks the rules of the introduction; there is nothing to go on with then.
    pub async fn serve(
        self,
        input: impl AsyncRead + Send + Unpin + 'static,
        output: impl AsyncWrite + Send + Unpin + 'static,
    ) -> Result<(), Box<ServerInitializeError>> {
        let app = self.0.app.clone();
        let wire = Wire::new(input, output, self.ending());
        let served = match serve_server(self.0, wire).await {
            Ok(running) => {
                if let Err(error) = running.waiting().await {
                    tracing::error!("the server of the assistant failed: {error}");
                }
                Ok(())
            }
            // it left without a word
            Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
            Err(error) => Err(Box::new(error)),
        };
        app.end_jobs().await;
        served
    }
}

impl Assistant {
    /// Answers a call: its result, or the error as the tool's.
    async fn answer(&self, call: Call, client: &str) -> CallToolResult {
        let (tool, arguments) = (call.tool, Value::Object(call.arguments.clone()));
        let began = Instant::now();
        let done = match tools::named(tool).and_then(|line| line.fault(&call.arguments)) {
            Some(fault) => Err(fault),
            None => self.work(call).await.map_err(|error| {
                let help = error.help.as_ref().map(|help| format!("\nhelp: {help}")).unwrap_or_default();
                format!("{}: {}{help}", error.kind, error.message)
            }),
        };
        if let Some(audit) = &self.audit {
            let error = done.as_ref().err().map(String::as_str);
            audit.write(&Called { client, tool, arguments: &arguments, error, took: began.elapsed() });
        }
        match done {
            Ok(value) => CallToolResult::structured(value),
            Err(text) => CallToolResult::error(vec![ContentBlock::text(text)]),
        }
    }
}

impl ServerHandler for Assistant {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder().enable_tools().enable_resources().build();
        let mut info = ServerConfig::new(capabilities).with_instructions(INSTRUCTIONS);
        info.server_info = Implementation::new("loaddensity", env!("CARGO_PKG_VERSION"));
        info
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(tools::TOOLS.iter().map(tools::Line::tool).collect()))
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        tools::named(name).map(tools::Line::tool)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let Some(line) = tools::named(&request.name) else {
            return Err(ErrorData::invalid_params(format!("unknown tool: {}", request.name), None));
        };
        let client =
            context.client_info().map_or_else(|| "unnamed".into(), |info| format!("{} {}", info.name, info.version));
        let call = Call {
            tool: line.name,
            arguments: request.arguments.unwrap_or_default(),
            withdrawn: context.ct.clone(),
            progress: context.meta.get_progress_token(),
            peer: context.peer.clone(),
        };
        Ok(self.answer(call, &client).await.into())
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        Ok(ListResourcesResult::with_all_items(resources::list(&self.app)))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(resources::templates()))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let uri = request.uri;
        match resources::read(&self.app, &uri) {
            None => Err(ErrorData::resource_not_found(format!("no resource {uri}"), None)),
            Some(Err(error)) => Err(ErrorData::internal_error(crate::command::with_causes(&error), None)),
            Some(Ok(contents)) => Ok(ReadResourceResult::new(vec![contents]).into()),
        }
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: RequestContext<RoleServer>,
    ) -> Result<CustomResult, ErrorData> {
        // a method that is known comes here if its parameters fit nothing
        let known = ["tools/call", "tools/list", "resources/list", "resources/read", "initialize", "ping"];
        if known.contains(&request.method.as_str()) {
            return Err(ErrorData::invalid_params(format!("wrong parameters of {}", request.method), None));
        }
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, format!("unknown method: {}", request.method), None))
    }
}
