//! Where requests go: scheme, host, port. Equal ones are the same object, so that comparing is cheap.

use super::url::Url;
use crate::dial::Host;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// Most origins that are kept; beyond it the table starts anew.
const MAX_ORIGINS: usize = 4_096;

/// An origin, and whether its certificate is checked: connections are shared only if both agree.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) is_https: bool,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) verify: bool,
    pub(super) dialled: Host,
    pub(super) host_header: String,
}

impl Origin {
    /// `https://host:port`.
    pub(super) fn base(&self) -> String {
        format!("{}://{}", if self.is_https { "https" } else { "http" }, self.host_header)
    }

    /// The URL of this origin with `target`.
    pub(super) fn url(&self, target: &str) -> Url {
        Url {
            is_https: self.is_https,
            host: self.host.clone(),
            port: self.port,
            credentials: None,
            target: target.to_owned(),
        }
    }
}

/// Every origin of a scenario on one core.
#[derive(Default)]
pub(super) struct Origins {
    known: RefCell<HashMap<Key, Rc<Origin>>>,
}

/// HTTPS, host, port, whether the certificate is checked.
type Key = (bool, String, u16, bool);

impl Origins {
    pub(super) fn get(&self, url: &Url, verify: bool) -> Rc<Origin> {
        let mut known = self.known.borrow_mut();
        let key = (url.is_https, url.host.clone(), url.port, verify);
        if let Some(origin) = known.get(&key) {
            return origin.clone();
        }
        if known.len() >= MAX_ORIGINS {
            known.clear();
        }
        let origin = Rc::new(Origin {
            is_https: url.is_https,
            host: url.host.clone(),
            port: url.port,
            verify,
            dialled: Host::new(&url.host),
            host_header: url.host_header(),
        });
        known.insert(key, origin.clone());
        origin
    }
}
