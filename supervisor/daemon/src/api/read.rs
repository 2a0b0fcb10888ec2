//! Reading: one object, or a list as it was at one version.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_model::kinds::{CHANGE_SET, Reading, Registration};
use berth_model::policy::Verb;
use berth_model::resource::change_set::without_sealed;
use berth_model::selector::Selector;
use berth_model::status::Reason;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::Api;
use super::reply::{self, Error, Reply};
use super::request::Ask;
use super::watch;
use crate::secret::redact_object;
use crate::store::{Page, PageRequest, Refusal, StoreError};

/// Where the next part of a list begins, as the client hands it back.
#[derive(Serialize, Deserialize)]
struct Continue {
    #[serde(rename = "v")]
    version: u64,
    #[serde(rename = "a")]
    after: (String, String),
}

/// `GET .../{name}`.
pub(super) async fn get(ask: Ask, kind: &'static Registration) -> Reply {
    let (namespace, name) = (ask.namespace(), ask.name());
    let reveal = ask.flag("reveal")?;
    let found = find(&ask.api, kind, &namespace, &name).await?;
    let object = found.ok_or_else(|| Refusal::NotFound { kind: kind.key(), namespace, name })?;
    let object = visible(&ask.api, kind, object, reveal)?;
    Ok(reply::json(&ask.shape().object(kind, object, (ask.api.clock)())))
}

async fn find(api: &Api, kind: &'static Registration, namespace: &str, name: &str) -> Result<Option<Value>, Error> {
    if let Some(reading) = kind.reading {
        let is_it = |one: &Value| text(one, "namespace") == namespace && text(one, "name") == name;
        return Ok(read(api, reading).await?.into_iter().find(is_it));
    }
    if kind.chained {
        let name = name.to_owned();
        return Ok(api.store.read(move |tx| tx.audit_record(&name)).await?);
    }
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let stored = api.store.read(move |tx| tx.get_value(kind.stored(), &namespace, &name)).await?;
    Ok(stored.and_then(|stored| kind.shown(stored)))
}

/// What is read from the machine.
async fn read(api: &Api, reading: Reading) -> Result<Vec<Value>, Error> {
    Ok((reading.show)(&api.system.machine(reading.rates).await?))
}

fn text<'o>(object: &'o Value, field: &str) -> &'o str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// All of it is one part of a list: there is little.
async fn readings(api: &Api, reading: Reading, wanted: &PageRequest) -> Result<Page, Error> {
    let chosen = |one: &Value| {
        let inside = wanted.namespace.as_deref().is_none_or(|namespace| text(one, "namespace") == namespace);
        inside && wanted.selector.matches(one)
    };
    let version = *api.store.revision().borrow();
    let items = read(api, reading).await?.into_iter().filter(chosen).collect();
    Ok(Page { version, items, next: None, remaining: 0 })
}

/// `GET` of a collection, in one namespace or all: a list, or a watch if that is asked for.
pub(super) async fn list(ask: Ask, kind: &'static Registration) -> Reply {
    if ask.flag("watch")? {
        if !kind.serves(Verb::Watch) {
            let message = format!("{} cannot be watched: they are read when they are asked for", kind.plural);
            return Err(Error::new(Reason::MethodNotAllowed, message));
        }
        return watch::watch(ask, kind).await;
    }
    let (version, wanted) = (Version::of(&ask)?, wanted(&ask, kind)?);
    let page = match kind.reading {
        Some(reading) => readings(&ask.api, reading, &wanted).await?,
        None => page(&ask.api, kind, wanted).await?,
    };
    version.check(page.version)?;
    let metadata = metadata(kind, &page)?;
    let reveal = ask.flag("reveal")?;
    let visible = |object| visible(&ask.api, kind, object, reveal);
    let items = page.items.into_iter().map(visible).collect::<Result<Vec<_>, _>>()?;
    Ok(reply::json(&ask.shape().list(kind, items, metadata, (ask.api.clock)())))
}

/// A part of a list. What is a view is chosen after it was made, so that such a part may have less than its share.
pub(super) async fn page(api: &Api, kind: &'static Registration, mut wanted: PageRequest) -> Result<Page, StoreError> {
    if kind.chained {
        return api.store.read(move |tx| tx.audit_page(&wanted)).await;
    }
    if kind.view.is_none() {
        return api.store.read(move |tx| tx.page(kind, &wanted)).await;
    }
    let selector = std::mem::take(&mut wanted.selector);
    let mut page = api.store.read(move |tx| tx.page(kind.stored(), &wanted)).await?;
    page.items = page.items.into_iter().filter_map(|stored| kind.shown(stored)).collect();
    page.items.retain(|shown| selector.matches(shown));
    Ok(page)
}

/// What a reader may see of an object. That he may reveal it was decided before he came here.
pub(super) fn visible(api: &Api, kind: &Registration, mut object: Value, reveal: bool) -> Result<Value, Error> {
    if *kind == CHANGE_SET {
        without_sealed(&mut object);
    }
    match (kind.sealed, reveal) {
        ([], _) => Ok(object),
        (maps, false) => Ok(redact_object(maps, object)),
        (maps, true) => Ok(api.sealer.reveal_object(maps, &object)?),
    }
}

/// The objects that `labelSelector` and `fieldSelector` choose.
pub(super) fn selector(ask: &Ask, kind: &Registration) -> Result<Selector, Error> {
    let text = |name| ask.query(name).unwrap_or("");
    Ok(Selector::parse(kind, text("labelSelector"), text("fieldSelector"))?)
}

/// The namespace of the request, if it is about one.
pub(super) fn scope(ask: &Ask) -> Option<String> {
    Some(ask.namespace()).filter(|namespace| !namespace.is_empty())
}

/// Which version of a list is wanted. A list is always of the newest version but where one is named exactly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Newest,
    NotOlderThan(u64),
    Exactly(u64),
}

impl Version {
    /// `resourceVersion` as `resourceVersionMatch` means it. Where that is not said, a version is the least one that will
    /// do, and with a limit the very one, as Kubernetes has it.
    pub(super) fn of(ask: &Ask) -> Result<Self, Error> {
        let named = ask.number("resourceVersion")?.filter(|version| *version > 0);
        let limited = ask.number("limit")?.is_some_and(|limit| limit > 0);
        match (ask.query("resourceVersionMatch"), named) {
            (None | Some("NotOlderThan"), None) => Ok(Self::Newest),
            (None, Some(version)) if limited => Ok(Self::Exactly(version)),
            (None | Some("NotOlderThan"), Some(version)) => Ok(Self::NotOlderThan(version)),
            (Some("Exact"), Some(version)) => Ok(Self::Exactly(version)),
            (Some("Exact"), None) => {
                Err(Error::bad_request("resourceVersionMatch=Exact needs the resourceVersion that is meant"))
            }
            (Some(other), _) => {
                let advice = "use Exact or NotOlderThan";
                Err(Error::bad_request(format!("resourceVersionMatch={other} is not understood; {advice}")))
            }
        }
    }

    /// Whether the version of an answer will do.
    pub(super) fn check(self, newest: u64) -> Result<(), Error> {
        match self {
            Self::NotOlderThan(asked) if asked > newest => Err(Refusal::Ahead { asked, newest }.into()),
            _ => Ok(()),
        }
    }
}

fn wanted(ask: &Ask, kind: &'static Registration) -> Result<PageRequest, Error> {
    let token = ask.query("continue").map(resume).transpose()?;
    let at = match (&token, Version::of(ask)?) {
        (Some(token), _) => Some(token.version),
        (None, Version::Exactly(version)) => Some(version),
        (None, _) => None,
    };
    let limit = ask.number("limit")?.filter(|limit| *limit > 0);
    Ok(PageRequest {
        namespace: scope(ask),
        selector: selector(ask, kind)?,
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        at,
        after: token.map(|token| token.after),
    })
}

fn resume(text: &str) -> Result<Continue, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(text).ok();
    let token = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    token.ok_or_else(|| Error::bad_request("`continue` is not a token from here; list again without it"))
}

fn metadata(kind: &Registration, page: &Page) -> Result<Value, Error> {
    let mut metadata = json!({ "resourceVersion": page.version.to_string() });
    if let Some(after) = page.next.clone() {
        let token = serde_json::to_vec(&Continue { version: page.version, after });
        let token = token.map_err(|_| Error::new(Reason::InternalError, "the list could not be divided"))?;
        metadata["continue"] = URL_SAFE_NO_PAD.encode(token).into();
        // How many views there are is known when they are made.
        if kind.view.is_none() {
            metadata["remainingItemCount"] = page.remaining.into();
        }
    }
    Ok(metadata)
}
