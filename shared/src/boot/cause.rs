//! Errors of connections in a few words.

use std::error::Error;
use std::io;

/// The innermost cause of an error. An end without goodbye is called that: libraries have long words for it.
pub fn of(error: &(dyn Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    let text = cause.to_string();
    let ended = cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::UnexpectedEof);
    // HTTP/2 hides the error below its own and keeps its words
    if ended || text.contains("without sending TLS close_notify") { "it was closed".into() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_in_few_words() {
        let closed =
            io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed connection without close_notify: https://…");
        assert_eq!(of(&closed), "it was closed");
        assert_eq!(of(&io::Error::other("connection reset")), "connection reset");
        let hidden = "peer closed connection without sending TLS close_notify: https://…";
        assert_eq!(of(&io::Error::other(hidden)), "it was closed");
    }
}
