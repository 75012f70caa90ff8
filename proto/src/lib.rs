//! The contract between master and workers: its generated code, and how it is decoded.
//!
//! What the messages mean is written in `proto/loaddensity/cluster/v1/cluster.proto`: it is enough
//! to write a worker in another language. Typed forms and all checks are in `ld_shared::wire`.

pub mod codec;

/// Version 1 of the contract's package.
#[expect(missing_docs, clippy::pedantic, clippy::allow_attributes, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("loaddensity.cluster.v1");
}
