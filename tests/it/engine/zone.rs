//! A DNS server in the test's own process: a zone in a map, answers over UDP, counts questions.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, MX, PTR, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;

#[derive(Clone)]
enum Entry {
    Records(Vec<RData>),
    Fails(ResponseCode),
    Silent,
}

#[derive(Default)]
struct Data {
    names: HashMap<String, Entry>,
    asked: HashMap<(String, RecordType), usize>,
    /// The address of every name that is not there.
    elsewhere: Option<IpAddr>,
    /// What it says of every name, there or not.
    lie: Option<Entry>,
}

/// See the module.
#[derive(Clone)]
pub struct Zone {
    pub address: SocketAddr,
    data: Arc<Mutex<Data>>,
}

impl Zone {
    pub async fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let zone = Self { address: socket.local_addr().unwrap(), data: Arc::default() };
        let data = Arc::clone(&zone.data);
        tokio::spawn(async move {
            let mut buffer = [0; 2048];
            while let Ok((octets, from)) = socket.recv_from(&mut buffer).await {
                let answer = answer(&data, &buffer[..octets]);
                if let Some(answer) = answer {
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        });
        zone
    }

    fn add(&self, name: &str, record: RData) {
        let mut data = self.data.lock().unwrap();
        match data.names.entry(name.into()).or_insert(Entry::Records(vec![])) {
            Entry::Records(records) => records.push(record),
            other => *other = Entry::Records(vec![record]),
        }
    }

    /// `name` exists, without records.
    pub fn empty(&self, name: &str) {
        self.data.lock().unwrap().names.insert(name.into(), Entry::Records(vec![]));
    }

    pub fn mx(&self, name: &str, preference: u16, exchange: &str) {
        let exchange = match exchange {
            "." => Name::root(),
            _ => Name::from_ascii(format!("{exchange}.")).unwrap(),
        };
        self.add(name, RData::MX(MX::new(preference, exchange)));
    }

    pub fn ip(&self, name: &str, ip: &str) {
        match ip.parse().unwrap() {
            IpAddr::V4(ip) => self.add(name, RData::A(A(ip))),
            IpAddr::V6(ip) => self.add(name, RData::AAAA(AAAA(ip))),
        }
    }

    pub fn text(&self, name: &str, text: &str) {
        self.add(name, RData::TXT(TXT::new(vec![text.into()])));
    }

    /// `ip` is called `name`.
    pub fn named(&self, ip: &str, name: &str) {
        let reverse = Name::from(ip.parse::<IpAddr>().unwrap()).to_ascii();
        let name = Name::from_ascii(format!("{name}.")).unwrap();
        self.add(reverse.trim_end_matches('.'), RData::PTR(PTR(name)));
    }

    /// As some providers' resolvers do: a name that is not there gets this address.
    pub fn hijacks(&self, ip: &str) {
        self.data.lock().unwrap().elsewhere = Some(ip.parse().unwrap());
    }

    /// As a resolver that is cut off from the world: no name is there.
    pub fn denies_all(&self) {
        self.data.lock().unwrap().lie = Some(Entry::Fails(ResponseCode::NXDomain));
    }

    /// As in a hotel before one has logged in: every name has this address.
    pub fn captures(&self, ip: &str) {
        let IpAddr::V4(ip) = ip.parse().unwrap() else { panic!("IPv4") };
        self.data.lock().unwrap().lie = Some(Entry::Records(vec![RData::A(A(ip))]));
    }

    /// No answer to anything.
    pub fn dies(&self) {
        self.data.lock().unwrap().lie = Some(Entry::Silent);
    }

    /// The truth from now on.
    pub fn is_honest(&self) {
        self.data.lock().unwrap().lie = None;
    }

    /// As if it had never been there.
    pub fn forget(&self, name: &str) {
        self.data.lock().unwrap().names.remove(name);
    }

    pub fn fails(&self, name: &str, code: ResponseCode) {
        self.data.lock().unwrap().names.insert(name.into(), Entry::Fails(code));
    }

    pub fn silent(&self, name: &str) {
        self.data.lock().unwrap().names.insert(name.into(), Entry::Silent);
    }

    pub fn asked(&self, name: &str, kind: RecordType) -> usize {
        self.data.lock().unwrap().asked.get(&(name.into(), kind)).copied().unwrap_or(0)
    }

    pub fn asked_in_all(&self) -> usize {
        self.data.lock().unwrap().asked.values().sum()
    }
}

fn answer(data: &Mutex<Data>, question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).ok()?;
    let query = question.queries.first()?.clone();
    let name = query.name().to_ascii().trim_end_matches('.').to_ascii_lowercase();
    let entry = {
        let mut data = data.lock().unwrap();
        *data.asked.entry((name.clone(), query.query_type())).or_default() += 1;
        let found = data.lie.clone().or_else(|| data.names.get(&name).cloned());
        let elsewhere = data.elsewhere.map(|ip| match ip {
            IpAddr::V4(ip) => Entry::Records(vec![RData::A(A(ip))]),
            IpAddr::V6(ip) => Entry::Records(vec![RData::AAAA(AAAA(ip))]),
        });
        found.or(elsewhere)
    };
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.metadata.recursion_desired = true;
    reply.metadata.recursion_available = true;
    reply.add_query(query.clone());
    match entry {
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some(Entry::Fails(code)) => reply.metadata.response_code = code,
        Some(Entry::Silent) => return None,
        Some(Entry::Records(records)) => {
            reply.add_answers(
                records
                    .into_iter()
                    .filter(|r| r.record_type() == query.query_type())
                    .map(|r| Record::from_rdata(query.name().clone(), 300, r)),
            );
        }
    };
    reply.to_vec().ok()
}
