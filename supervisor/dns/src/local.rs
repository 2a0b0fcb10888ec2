//! The machine's own name for those who share a link with it: `<hostname>.local` by multicast DNS (RFC 6762), and the API
//! as a service of the type `_berth._tcp` (RFC 6763), so that a client can find it without knowing its name.
//!
//! Services are no neighbours: nothing is said or heard on their links. Of two machines of one name the second calls
//! itself `<hostname>-2.local`, which the log tells.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use mdns_sd::{DaemonEvent, IfKind, IfPredicate, Receiver, ServiceDaemon, ServiceInfo};
use nix::unistd::gethostname;
use tracing::warn;

/// The port of multicast DNS.
const PORT: u16 = 5353;
/// What Berth's API is called among services.
const TYPE: &str = "_berth._tcp.local.";
/// Seconds between two looks at the machine's addresses.
const LOOK_EVERY: u32 = 30;
/// For the last words.
const GOODBYE: Duration = Duration::from_secs(1);

/// The name is not told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LocalError {
    /// The machine has no name that others could ask for.
    #[error("the machine is called {0:?}, which no other machine can ask for; give it a host name")]
    NoName(String),
    /// The kernel does not tell it.
    #[error("asking for the host name")]
    Host(#[from] nix::Error),
    /// Avahi or systemd-resolved, most likely: they tell the name themselves.
    #[error("port {PORT} is taken, most likely by another program that tells the machine's name")]
    Taken(#[source] io::Error),
    /// The library cannot work.
    #[error("telling the machine's name")]
    Library(#[from] mdns_sd::Error),
}

/// Answers for the machine until it is dropped.
pub(crate) struct LocalName {
    daemon: ServiceDaemon,
    news: Receiver<DaemonEvent>,
    /// `<hostname>.local`.
    pub(crate) name: String,
}

impl LocalName {
    /// Tells the machine's name, and that its API is at `port`.
    pub(crate) fn tell(port: u16) -> Result<Self, LocalError> {
        let label = label(&gethostname()?.to_string_lossy())?;
        // The library would share the port, and two that answer for one machine take each other for a stranger.
        UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)).map_err(LocalError::Taken)?;
        let daemon = ServiceDaemon::new()?;
        let news = daemon.monitor()?;
        let inward = IfPredicate::new(|link| link.is_loopback() || is_own(&link.name));
        daemon.disable_interface(IfKind::Predicate(inward))?;
        daemon.set_ip_check_interval(LOOK_EVERY)?;
        let name = format!("{label}.local");
        daemon.register(ServiceInfo::new(TYPE, &label, &format!("{name}."), "", port, None)?.enable_addr_auto())?;
        Ok(Self { daemon, news, name })
    }

    /// The next name that the machine had to take because another one has its own; never, once the library is at its end.
    pub(crate) async fn renamed(&self) -> String {
        loop {
            match self.news.recv_async().await {
                Ok(DaemonEvent::NameChange(change)) => return change.new_name,
                Ok(_) => {}
                Err(_) => std::future::pending().await,
            }
        }
    }
}

impl Drop for LocalName {
    /// Says goodbye, so that nobody goes on believing in it.
    fn drop(&mut self) {
        if let Ok(done) = self.daemon.shutdown() {
            // Whoever is in a hurry leaves without: the records end by themselves after two minutes.
            let _unheard = done.recv_timeout(GOODBYE);
        }
    }
}

/// What is there while it is wanted. It is tried for when it begins to be wanted, and not again at each look.
pub(crate) struct OnRequest<T> {
    wanted: bool,
    present: Option<T>,
}

impl<T> Default for OnRequest<T> {
    fn default() -> Self {
        Self { wanted: false, present: None }
    }
}

impl<T: Send + 'static> OnRequest<T> {
    /// Brings it about, or takes leave of it, which may take a while.
    pub(crate) async fn follow(&mut self, wanted: bool, begin: impl FnOnce() -> Option<T>) {
        if std::mem::replace(&mut self.wanted, wanted) == wanted {
            return;
        }
        if wanted {
            self.present = begin();
        } else if let Some(last) = self.present.take()
            && let Err(failure) = tokio::task::spawn_blocking(move || drop(last)).await
        {
            warn!(
                error = &failure as &dyn std::error::Error,
                "the machine's name was told until now, without a goodbye"
            );
        }
    }

    /// It, if there is one.
    pub(crate) fn present(&self) -> Option<&T> {
        self.present.as_ref()
    }
}

/// The first label of a host name, as a name on the link.
fn label(hostname: &str) -> Result<String, LocalError> {
    let label = hostname.split('.').next().unwrap_or_default().to_ascii_lowercase();
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let is_name = !label.is_empty() && label.len() < 64 && label.bytes().all(fits) && label != "localhost";
    is_name.then_some(label).ok_or_else(|| LocalError::NoName(hostname.to_owned()))
}

/// Whether it is a bridge of services, or leads to one of them.
fn is_own(link: &str) -> bool {
    let number = link.strip_prefix("berth").or_else(|| link.strip_prefix("bv"));
    number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_on_the_link_is_the_first_label_of_the_host_name() {
        assert_eq!(label("Box.example.org").unwrap(), "box");
        assert_eq!(label("cellar-2").unwrap(), "cellar-2");
        for none in ["", "localhost", "localhost.localdomain", "what_is_this", ".example"] {
            assert!(label(none).is_err(), "{none}");
        }
    }

    /// Says when it goes.
    struct Told(std::sync::mpsc::Sender<&'static str>);

    impl Drop for Told {
        fn drop(&mut self) {
            self.0.send("goodbye").unwrap();
        }
    }

    #[tokio::test]
    async fn the_name_is_told_from_when_it_is_wanted_until_it_is_not_and_tried_once_each_time() {
        let (say, heard) = std::sync::mpsc::channel();
        let begin = |works: bool| {
            let say = say.clone();
            move || {
                say.send("hello").unwrap();
                works.then(|| Told(say))
            }
        };
        let mut local = OnRequest::default();
        local.follow(false, begin(true)).await;
        assert_eq!(heard.try_iter().count(), 0);
        for wanted in [true, true, false, false] {
            local.follow(wanted, begin(true)).await;
            assert_eq!(local.present().is_some(), wanted);
        }
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["hello", "goodbye"]);
        for _ in 0..2 {
            local.follow(true, begin(false)).await;
        }
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["hello"]);
    }

    #[test]
    fn links_of_services_are_known_by_their_names() {
        assert!(is_own("berth0") && is_own("bv12"));
        assert!(!is_own("berth-lan") && !is_own("eth0") && !is_own("berth") && !is_own("bvlan"));
    }
}
