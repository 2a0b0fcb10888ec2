//! What both ends of a connection to the API keep to.

use std::time::Duration;

/// The server waits so long for the head of the next request, then it closes an HTTP/1 connection.
pub const SERVER_WAITS: Duration = Duration::from_secs(15);

/// A client uses no connection again that was quiet for longer. One that the server closes in the same moment breaks
/// off under the request, and nobody can tell whether it was carried out.
pub const CLIENT_REUSES: Duration = Duration::from_secs(5);

const _: () = assert!(CLIENT_REUSES.as_secs() * 2 < SERVER_WAITS.as_secs());
