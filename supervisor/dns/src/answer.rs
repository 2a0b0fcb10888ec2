//! From a question to an answer: the zone decides, this only spells it.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock};

use berth_model::network::{Answer, Host, Query, Zone};
use hickory_server::net::runtime::Time;
use hickory_server::proto::op::{Header, HeaderCounts, MessageType, Metadata, OpCode, ResponseCode};
use hickory_server::proto::rr::rdata::{A, AAAA, PTR, SRV};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tracing::debug;

use crate::upstream::{Said, Upstream};

/// Seconds an answer about a bundle may be remembered: names come and go with rules.
const LIFE: u32 = 5;

/// All that is known of names. Cheap to clone; clones share it.
#[derive(Clone)]
pub(crate) struct Names {
    zone: Arc<RwLock<Arc<Zone>>>,
    upstream: Arc<Upstream>,
}

/// What is to be sent.
struct Spelled {
    said: Said,
    authoritative: bool,
}

impl Names {
    pub(crate) fn new(upstream: Arc<Upstream>) -> Self {
        Self { zone: Arc::default(), upstream }
    }

    pub(crate) fn replace(&self, zone: Zone) {
        *self.zone.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(zone);
    }

    fn zone(&self) -> Arc<Zone> {
        Arc::clone(&self.zone.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn spell(&self, asker: IpAddr, name: Name, kind: RecordType) -> Spelled {
        let zone = self.zone();
        let text = name.to_ascii();
        match zone.answer(Query { asker: asker.to_canonical(), name: &text }) {
            Answer::Elsewhere => Spelled { said: self.upstream.ask(name, kind).await, authoritative: false },
            Answer::Refused => Spelled { said: Said::nothing(ResponseCode::Refused), authoritative: false },
            Answer::Unknown => ours(ResponseCode::NXDomain, Vec::new()),
            Answer::Above => ours(ResponseCode::NoError, Vec::new()),
            Answer::Host(host) => ours(ResponseCode::NoError, addresses(host, &name, kind)),
            Answer::Pointer(host) => ours(ResponseCode::NoError, pointer(host, name, kind)),
            Answer::Service(host, port) => ours(ResponseCode::NoError, service(host, port.port, name, kind)),
        }
    }
}

fn ours(code: ResponseCode, answers: Vec<Record>) -> Spelled {
    Spelled { said: Said { answers, ..Said::nothing(code) }, authoritative: true }
}

fn addresses(host: &Host, name: &Name, kind: RecordType) -> Vec<Record> {
    let data = host.service.iter().map(|address| match address {
        IpAddr::V4(address) => RData::A(A(*address)),
        IpAddr::V6(address) => RData::AAAA(AAAA(*address)),
    });
    let wanted = data.filter(|data| kind == RecordType::ANY || data.record_type() == kind);
    wanted.map(|data| Record::from_rdata(name.clone(), LIFE, data)).collect()
}

fn pointer(host: &Host, name: Name, kind: RecordType) -> Vec<Record> {
    let asked = [RecordType::PTR, RecordType::ANY].contains(&kind);
    let target = Name::from_ascii(host.full_name() + ".").ok().filter(|_| asked);
    target.map(|target| Record::from_rdata(name, LIFE, RData::PTR(PTR(target)))).into_iter().collect()
}

fn service(host: &Host, port: u16, name: Name, kind: RecordType) -> Vec<Record> {
    let asked = [RecordType::SRV, RecordType::ANY].contains(&kind);
    let target = Name::from_ascii(host.full_name() + ".").ok().filter(|_| asked);
    let data = target.map(|target| RData::SRV(SRV::new(0, 0, port, target)));
    data.map(|data| Record::from_rdata(name, LIFE, data)).into_iter().collect()
}

#[async_trait::async_trait]
impl RequestHandler for Names {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut out: R) -> ResponseInfo {
        let spelled = match request.request_info() {
            Ok(asked) if request.metadata.op_code != OpCode::Query || asked.query.query_class() != DNSClass::IN => {
                Spelled { said: Said::nothing(ResponseCode::NotImp), authoritative: false }
            }
            Ok(asked) => {
                let (name, kind) = (Name::from(asked.query.name()), asked.query.query_type());
                self.spell(asked.src.ip(), name, kind).await
            }
            Err(_) => Spelled { said: Said::nothing(ResponseCode::FormErr), authoritative: false },
        };
        let mut metadata = Metadata::response_from_request(&request.metadata);
        metadata.authoritative = spelled.authoritative;
        metadata.recursion_available = true;
        metadata.response_code = spelled.said.code;
        let said = &spelled.said;
        let answer = MessageResponseBuilder::from_message_request(request);
        let answer = answer.build(metadata, &said.answers, &[], &said.authorities, &[]);
        match out.send_response(answer).await {
            Ok(sent) => sent,
            Err(error) => {
                // The asker is gone; it will ask again.
                debug!(%error, "an answer could not be sent");
                let mut failed = Metadata::new(request.metadata.id, MessageType::Response, OpCode::Query);
                failed.response_code = ResponseCode::ServFail;
                ResponseInfo::from(Header { metadata: failed, counts: HeaderCounts::default() })
            }
        }
    }
}
