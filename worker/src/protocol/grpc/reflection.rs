//! Asks a target what its services are.
//!
//! Version 1 of the protocol, else `v1alpha`: their messages are the same on the wire.

use super::call::{Receiver, call};
use super::channel::{Channel, Opener};
use super::descriptors::Descriptors;
use super::frames;
use super::place::{Place, Unmet};
use super::status::{self, Trouble, UNIMPLEMENTED};
use crate::dial::Stamps;
use crate::probe::Probe;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::uri::PathAndQuery;
use ld_shared::sample::{Failure, FailureKind};
use prost::Message as _;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::FileDescriptorProto;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest as Question;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse as Answer;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};

const PATHS: [&str; 2] = [
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];
/// Longest time that all questions together may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of answers: what services say of themselves is small.
const MOST: usize = 64 * 1024 * 1024;
/// Most rounds in which files are fetched that others import.
const ROUNDS: usize = 64;

/// The services of `place`, over a channel of its own; `headers` go with the questions.
pub(super) async fn ask(opener: Rc<Opener>, place: Rc<Place>, headers: HeaderMap) -> Result<Rc<Descriptors>, Unmet> {
    let asked = tokio::time::timeout(PATIENCE, Box::pin(services(&opener, &place, headers)));
    let late = || Failure::new(FailureKind::Timeout, "server reflection: no answer in time");
    asked.await.unwrap_or_else(|_| Err(Trouble { failure: late(), ..Trouble::deadline() }.into()))
}

impl From<Trouble> for Unmet {
    fn from(trouble: Trouble) -> Self {
        Self { trouble, is_local: false, is_final: false }
    }
}

async fn services(opener: &Opener, place: &Rc<Place>, headers: HeaderMap) -> Result<Rc<Descriptors>, Unmet> {
    let mut probe = Probe::default();
    probe.start().expect("nobody's probe may always start");
    let channel = opener.open(place, &mut Stamps(Some(&mut probe))).await;
    let channel = channel.map_err(|trouble| Unmet { is_local: probe.is_unsent(), ..trouble.into() })?;
    let mut asker = Asker { channel: &channel, place, path: PATHS[0], headers };
    let list = || [Question::ListServices("*".to_owned())];
    let mut listed = asker.answers(list()).await;
    if listed.as_ref().is_err_and(|trouble| trouble.status == UNIMPLEMENTED) {
        asker.path = PATHS[1];
        listed = asker.answers(list()).await;
    }
    let listed = listed.map_err(|trouble| match trouble.status {
        UNIMPLEMENTED => {
            let reason = "the target has no server reflection: give `proto` or `descriptor_set`";
            let failure = Failure::new(FailureKind::Request, reason);
            Unmet { is_final: true, ..Trouble { failure, ..trouble }.into() }
        }
        _ => Unmet::from(told(trouble)),
    })?;
    let names = listed.into_iter().flat_map(|answer| match answer {
        Answer::ListServicesResponse(list) => list.service,
        _ => Vec::new(),
    });
    let questions = names.map(|service| Question::FileContainingSymbol(service.name));
    let mut files = BTreeMap::new();
    asker.collect(questions, &mut files).await?;
    for _ in 0..ROUNDS {
        let imported: BTreeSet<String> = files.values().flat_map(|file| file.dependency.iter().cloned()).collect();
        let missing: Vec<String> = imported.into_iter().filter(|name| !files.contains_key(name)).collect();
        if missing.is_empty() {
            break;
        }
        let known = files.len();
        asker.collect(missing.iter().cloned().map(Question::FileByFilename), &mut files).await?;
        if files.len() == known {
            // some servers keep what everybody has to themselves
            let common = DescriptorPool::global();
            let ours = missing.iter().filter_map(|name| common.get_file_by_name(name));
            files.extend(ours.map(|file| (file.name().to_owned(), file.file_descriptor_proto().clone())));
        }
        if files.len() == known {
            break;
        }
    }
    let mut pool = DescriptorPool::new();
    let added = pool.add_file_descriptor_protos(files.into_values());
    added.map_err(|_| told(Trouble::protocol("descriptors that do not fit together")))?;
    Ok(Rc::new(Descriptors::new(pool)))
}

/// The trouble as that of reflection, not of the call that needs it.
fn told(trouble: Trouble) -> Trouble {
    let Failure { kind, reason } = trouble.failure;
    Trouble { failure: Failure::new(kind, format!("server reflection: {reason}")), ..trouble }
}

/// Asks over one channel.
struct Asker<'a> {
    channel: &'a Channel,
    place: &'a Place,
    path: &'static str,
    headers: HeaderMap,
}

impl Asker<'_> {
    /// Asks for files, and keeps those that the answers hold. What a server knows nothing about is
    /// passed over: nobody may ever need it.
    async fn collect(
        &self,
        questions: impl IntoIterator<Item = Question>,
        files: &mut BTreeMap<String, FileDescriptorProto>,
    ) -> Result<(), Trouble> {
        for answer in self.answers(questions).await.map_err(told)? {
            let Answer::FileDescriptorResponse(found) = answer else { continue };
            for file in found.file_descriptor_proto {
                let file = FileDescriptorProto::decode(&*file);
                let file = file.map_err(|_| told(Trouble::protocol("a malformed descriptor")))?;
                files.entry(file.name().to_owned()).or_insert(file);
            }
        }
        Ok(())
    }

    /// Asks several questions in one call.
    async fn answers(&self, questions: impl IntoIterator<Item = Question>) -> Result<Vec<Answer>, Trouble> {
        let mut body = BytesMut::new();
        for question in questions {
            let host = self.place.authority.to_string();
            frames::push(&ServerReflectionRequest { host, message_request: Some(question) }, &mut body);
        }
        if body.is_empty() {
            return Ok(Vec::new());
        }
        let head = super::head(self.place, &PathAndQuery::from_static(self.path), self.headers.clone());
        let mut collected = Collected { answers: Vec::new(), left: MOST };
        let status = call(self.channel, head, body.freeze(), MOST, &mut Stamps(None), &mut collected).await?;
        match status::refusal(status.code, &status.message) {
            None => Ok(collected.answers),
            Some(failure) => Err(Trouble { status: status.code, failure, is_unseen: false }),
        }
    }
}

struct Collected {
    answers: Vec<Answer>,
    left: usize,
}

impl Receiver for Collected {
    fn message(&mut self, message: Bytes) -> Result<(), Trouble> {
        let left = self.left.checked_sub(message.len());
        self.left = left.ok_or_else(|| Trouble::protocol("more descriptors than anybody has"))?;
        let answer = ServerReflectionResponse::decode(message).map_err(|_| Trouble::protocol("a malformed answer"))?;
        self.answers.extend(answer.message_response);
        Ok(())
    }
}
