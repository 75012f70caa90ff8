//! All routes.

use super::field::{Field, Kind};
use super::problem::Code;
use super::reports::{FORMATS, PARTS};
use super::route::{Answer, JSON, Method, Payload, Route};
use super::{control, live, look, reports, runs};

const ID: Field = Field::new(
    "id",
    Kind::Text(200),
    "`current`, the id of a job (`job-3`) or run, or of a kept run its number, id, label, `latest` or `previous`",
)
.required();
const LENIENT: Field =
    Field::new("lenient", Kind::Flag, "Takes what the seed would run: what it passes over is a warning");
const SCENARIO: Field =
    Field::new("scenario", Kind::Text(500), "Name or number of the scenario; needed if the test has several");
const USERS: &[Field] = &[Field::new("users", Kind::Whole(0, 1_000_000_000), "How many").required(), SCENARIO];
const RATE: &[Field] = &[Field::new("rate", Kind::Number(0.0, 1e9), "Iterations per second").required(), SCENARIO];

const HTML: &str = "text/html";
/// Each event has a form of its own: there is no one schema.
const EVENTS: &str = "text/event-stream";
const FOUND: &[Code] = &[Code::NoSuchRun, Code::NothingRuns, Code::Store];
const CHANGES: &[Code] = &[
    Code::NoSuchRun,
    Code::NothingRuns,
    Code::Store,
    Code::NotRunning,
    Code::NotAllowed,
    Code::NoSuchScenario,
    Code::OtherModel,
    Code::NoCapacity,
    Code::AlreadySo,
    Code::ChangedTooOften,
];
const ENDS: &[Code] = &[Code::NoSuchRun, Code::NothingRuns, Code::Store, Code::NotRunning];
const CHANGED: &[Answer] = &[Answer::json(200, "Test", "It holds half a second from now; where the test stands")];
const ENDED: &[Answer] = &[Answer::json(202, "Run", "It is ending")];

const NOTHING: Route = Route {
    method: Method::Get,
    path: "",
    name: "",
    about: "",
    path_fields: &[],
    query: &[],
    body: Payload::None,
    answers: &[],
    problems: &[],
    handler: |_, _| Box::pin(async { Ok(look::health()) }),
};

/// All routes.
pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/healthz",
        name: "health",
        about: "The process is there; needs no token",
        answers: &[Answer::json(200, "Health", "It is")],
        ..NOTHING
    },
    Route {
        path: "/readyz",
        name: "ready",
        about: "A test could start now: enough workers are there; needs no token",
        answers: &[
            Answer::json(200, "Ready", "It could"),
            Answer::json(503, "Ready", "It could not; `reason` says why"),
        ],
        handler: |web, call| Box::pin(look::ready(web, call)),
        ..NOTHING
    },
    Route {
        path: "/metrics",
        name: "metrics",
        about: "What was measured since the process began, for Prometheus",
        answers: &[Answer { status: 200, about: "Metrics", content: Some(("text/plain", "Text")) }],
        handler: |web, call| Box::pin(look::metrics(web, call)),
        ..NOTHING
    },
    Route {
        path: "/",
        name: "index",
        about: "This list",
        answers: &[Answer { status: 200, about: "A page", content: Some((HTML, "Text")) }],
        handler: |_, _| Box::pin(async { Ok(look::index()) }),
        ..NOTHING
    },
    Route {
        path: "/openapi.json",
        name: "description",
        about: "This API as an OpenAPI 3.1 document",
        answers: &[Answer::json(200, "Object", "The document")],
        handler: |_, _| Box::pin(async { Ok(look::description()) }),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/login",
        name: "login",
        about: "Gives a cookie for the token, for browsers",
        body: Payload::Token,
        answers: &[
            Answer::json(200, "Login", "The cookie `ld_session` is set"),
            Answer { status: 303, about: "The same after the form of a page", content: None },
        ],
        problems: &[Code::NoTokenSet],
        handler: |web, call| Box::pin(async move { look::login(&web, &call) }),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/logout",
        name: "logout",
        about: "Ends what the cookie is good for",
        answers: &[Answer { status: 204, about: "The cookie is taken back", content: None }],
        handler: |web, call| Box::pin(async move { Ok(look::logout(&web, &call)) }),
        ..NOTHING
    },
    Route {
        path: "/api/v1/runs",
        name: "listRuns",
        about: "The test that goes on, documents from outside, kept runs; the newest first",
        query: &[Field::new("limit", Kind::Whole(1, 1_000), "At most so many kept runs; without it 20")],
        answers: &[Answer::json(200, "Runs", "The lists")],
        problems: &[Code::Store],
        handler: |web, call| Box::pin(runs::list(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/runs",
        name: "startRun",
        about: "Takes an action document: it runs when its turn comes",
        query: &[LENIENT, Field::new("label", Kind::Text(200), "What its runs are labelled")],
        body: Payload::Document,
        answers: &[Answer::json(202, "Job", "It was taken; `Location` shows it")],
        problems: &[Code::StartsNothing, Code::Faults, Code::TooMany],
        handler: |web, call| Box::pin(runs::start(web, call)),
        ..NOTHING
    },
    Route {
        path: "/api/v1/runs/{id}",
        name: "showRun",
        about: "A run: where it stands, and once tests of it are over what they found",
        path_fields: &[ID],
        answers: &[Answer::json(200, "Run", "The run")],
        problems: FOUND,
        handler: |web, call| Box::pin(runs::show(web, call)),
        ..NOTHING
    },
    Route {
        path: "/api/v1/runs/{id}/live",
        name: "followRun",
        about: "Server-sent events: `second` for each finished second of its tests, then `end` with the verdict",
        path_fields: &[ID],
        answers: &[
            Answer {
                status: 200,
                about: "The events. `second` has a row of the timeline, and the second as its id. `Last-Event-ID` \
                        goes on behind that one",
                content: Some((EVENTS, "")),
            },
            Answer { status: 204, about: "`Last-Event-ID` is that of `end`: there is no more", content: None },
        ],
        problems: &[Code::NoSuchRun, Code::NothingRuns, Code::Store, Code::TooMany],
        handler: |web, call| Box::pin(live::stream(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/runs/{id}/users",
        name: "setUsers",
        about: "Sets the users of a scenario of the test that goes on",
        path_fields: &[ID],
        body: Payload::Fields(USERS),
        answers: CHANGED,
        problems: CHANGES,
        handler: |web, call| Box::pin(control::users(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/runs/{id}/rate",
        name: "setRate",
        about: "Sets the iterations per second of a scenario of the test that goes on",
        path_fields: &[ID],
        body: Payload::Fields(RATE),
        answers: CHANGED,
        problems: CHANGES,
        handler: |web, call| Box::pin(control::rate(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/runs/{id}/pause",
        name: "pause",
        about: "Starts nothing more until it is resumed; users keep their state",
        path_fields: &[ID],
        answers: CHANGED,
        problems: CHANGES,
        handler: |web, call| Box::pin(control::pause(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/runs/{id}/resume",
        name: "resume",
        about: "Goes on from where it was paused",
        path_fields: &[ID],
        answers: CHANGED,
        problems: CHANGES,
        handler: |web, call| Box::pin(control::resume(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/runs/{id}/stop",
        name: "stopRun",
        about: "Ends it: open requests may finish, later tests of its document are not begun",
        path_fields: &[ID],
        answers: ENDED,
        problems: ENDS,
        handler: |web, call| Box::pin(runs::stop(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/runs/{id}/abort",
        name: "abortRun",
        about: "Ends it at once: open requests are cut off",
        path_fields: &[ID],
        answers: ENDED,
        problems: ENDS,
        handler: |web, call| Box::pin(runs::abort(web, call)),
        ..NOTHING
    },
    Route {
        path: "/api/v1/runs/{id}/reports/{format}",
        name: "report",
        about: "A report of the tests of it that are over; of kept runs the summary",
        path_fields: &[ID, Field::new("format", Kind::OneOf(FORMATS), "Its form").required()],
        query: &[Field::new("part", Kind::OneOf(PARTS), "Which requests it lists; without it all")],
        answers: &[
            Answer { status: 200, about: "`summary`, `json`", content: Some((JSON, "Object")) },
            Answer { status: 200, about: "`html`", content: Some((HTML, "Text")) },
            Answer { status: 200, about: "`xml`, `junit`", content: Some(("application/xml", "Text")) },
            Answer { status: 200, about: "`csv`", content: Some(("text/csv", "Text")) },
        ],
        problems: &[Code::NoSuchRun, Code::NothingRuns, Code::NoSuchReport, Code::Store],
        handler: |web, call| Box::pin(reports::give(web, call)),
        ..NOTHING
    },
    Route {
        path: "/api/v1/compare",
        name: "compareRuns",
        about: "Which metrics of which names moved beyond noise from run `a` to run `b`",
        query: &[
            Field::new("a", Kind::Text(200), "The run that is compared with, by any id that shows it").required(),
            Field::new("b", Kind::Text(200), "The run that is judged").required(),
            Field::new("threshold_percent", Kind::Number(0.0, 1_000.0), "Least change that counts; without it 5"),
        ],
        answers: &[Answer::json(200, "Comparison", "What moved")],
        problems: &[Code::NoSuchRun, Code::NothingRuns, Code::NoEvidence, Code::Store],
        handler: |web, call| Box::pin(runs::compare(web, call)),
        ..NOTHING
    },
    Route {
        path: "/api/v1/workers",
        name: "listWorkers",
        about: "Workers that are there, and how they do",
        answers: &[Answer::json(200, "Workers", "The workers")],
        handler: |web, call| Box::pin(look::workers(web, call)),
        ..NOTHING
    },
    Route {
        method: Method::Post,
        path: "/api/v1/validate",
        name: "validate",
        about: "Every fault of an action document, without running anything",
        query: &[LENIENT],
        body: Payload::Document,
        answers: &[Answer::json(200, "Validation", "What was found")],
        handler: |web, call| Box::pin(runs::validate(web, call)),
        ..NOTHING
    },
    Route {
        path: "/api/v1/schema",
        name: "documentSchema",
        about: "The JSON Schema of action documents",
        answers: &[Answer::json(200, "Object", "The schema")],
        handler: |web, _| Box::pin(async move { Ok(look::document_schema(&web)) }),
        ..NOTHING
    },
];
