//! Our contract against the public one: the crate `linkerd2-proxy-api`.
//!
//! Two proofs, because each sees what the other cannot. Values: messages with every field set
//! and every alternative taken in turn, encoded by ours, decoded and encoded again by theirs,
//! come back as the same bytes and the same values. Shape: the definitions that the crate is
//! generated from say of every message, field, alternative, value and method what ours say,
//! so that nothing exists there which we lack. What is ours alone (numbers from 10,000 on) is
//! left aside.

#![expect(clippy::unwrap_used, reason = "a test may: its panic is the report")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    process::Command,
};

use linkerd2_proxy_api as theirs;
use prost::{Message, bytes::Bytes};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value,
};
use tulle_api as ours;

const PACKAGE: &str = "io.linkerd.proxy.";

/// Fields of ours that the public protocol does not have.
const OWN_FIELDS: u32 = 10_000;

/// Messages of such fields, which stand where what they are made of stands.
const OWN_MESSAGES: [&str; 2] = [
    "io.linkerd.proxy.http_route.UrlRewrite",
    "io.linkerd.proxy.outbound.RequestMirror",
];

/// Random values of each message, besides one for each of its alternatives.
const SEEDS: u64 = 200;

type RoundTrip = fn(&[u8]) -> Vec<u8>;

/// By full name: decode and encode with our type, the same with theirs.
macro_rules! messages {
    ($($package:ident: $($message:ident $(= $rust:ident)?),+;)+) => {
        [$($(
            (
                concat!("io.linkerd.proxy.", stringify!($package), ".", stringify!($message)),
                round_trip::<messages!(@ours $package $message $($rust)?)> as RoundTrip,
                round_trip::<messages!(@theirs $package $message $($rust)?)> as RoundTrip,
            ),
        )+)+]
    };
    (@ours $package:ident $message:ident) => { ours::$package::$message };
    (@ours $package:ident $message:ident $rust:ident) => { ours::$package::$rust };
    (@theirs $package:ident $message:ident) => { theirs::$package::$message };
    (@theirs $package:ident $message:ident $rust:ident) => { theirs::$package::$rust };
}

fn round_trip<M: Message + Default>(bytes: &[u8]) -> Vec<u8> {
    M::decode(bytes)
        .expect("what a compatible encoder wrote")
        .encode_to_vec()
}

fn all() -> Vec<(&'static str, RoundTrip, RoundTrip)> {
    messages! {
        net: IPAddress = IpAddress, IPv6 = IPv6, IPNetwork = IpNetwork, TcpAddress;
        meta: Metadata, Resource;
        http_types: HttpMethod, Scheme, Headers;
        http_route: HostMatch, HttpRouteMatch, PathMatch, HeaderMatch, QueryParamMatch,
            RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect, PathModifier,
            HttpFailureInjector, Ratio, Timeouts;
        grpc_route: GrpcRouteMatch, GrpcRpcMatch, GrpcFailureInjector;
        tls_route: SniMatch;
        opaque_route: Invalid, Forbidden;
        identity: CertifyRequest, CertifyResponse;
        destination: GetDestination, Update, AddrSet, NoEndpoints, WeightedAddrSet,
            WeightedAddr, TlsIdentity, ProtocolHint, AuthorityOverride, Http2ClientParams,
            DestinationProfile, Route, RequestMatch, PathMatch, ResponseClass, ResponseMatch,
            HttpStatusRange, RetryBudget, WeightedDst;
        inbound: PortSpec, Server, ProxyProtocol, HttpRoute, GrpcRoute, HttpLocalRateLimit,
            Authz, Network, Authn, Identity, IdentitySuffix;
        outbound: TrafficSpec, OutboundPolicy, ProxyProtocol, HttpRoute, GrpcRoute,
            OpaqueRoute, TlsRoute, Backend, Queue, FailureAccrual,
            ExponentialBackoff, EjectionConfig;
        tap: ObserveRequest, TapEvent, Eos;
    }
    .to_vec()
}

#[test]
fn what_ours_encodes_theirs_decodes_to_the_same() {
    let pool = our_pool();
    let mut proved = BTreeSet::new();
    for (name, ours, theirs) in all() {
        let descriptor = pool
            .get_message_by_name(name)
            .unwrap_or_else(|| panic!("no {name}"));
        for (seed, value) in values(&descriptor).enumerate() {
            let bytes = value.encode_to_vec();

            let (by_ours, by_theirs) = (ours(&bytes), theirs(&bytes));

            assert_eq!(
                Bytes::from(by_ours),
                Bytes::from(by_theirs.clone()),
                "{name} {seed}: {value}"
            );
            let back = DynamicMessage::decode(descriptor.clone(), &by_theirs[..]).unwrap();
            assert_eq!(back, value, "{name} {seed}");
            note_fields(&value, &mut proved);
        }
    }

    let fields: BTreeSet<String> = pool
        .all_messages()
        .filter(|message| is_stock(message.full_name()) && !message.is_map_entry())
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter(|field| field.number() < OWN_FIELDS)
        .map(|field| field.full_name().to_owned())
        .collect();
    let unproved: Vec<&String> = fields.difference(&proved).collect();
    assert!(unproved.is_empty(), "{unproved:#?}");
}

#[test]
fn every_message_is_in_the_list() {
    let listed: BTreeSet<String> = all().iter().map(|(name, ..)| (*name).to_owned()).collect();

    let defined: BTreeSet<String> = our_pool()
        .all_messages()
        .filter(|message| message.parent_message().is_none())
        .map(|message| message.full_name().to_owned())
        .filter(|name| is_stock(name))
        .collect();

    assert_eq!(listed, defined);
}

#[test]
fn our_definitions_say_what_theirs_say() {
    let (ours, theirs) = (shape(&our_pool()), shape(&their_pool()));

    let differences: Vec<String> = ours
        .keys()
        .chain(theirs.keys())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|key| ours.get(*key) != theirs.get(*key))
        .map(|key| {
            format!(
                "{key}: ours {:?}, theirs {:?}",
                ours.get(key),
                theirs.get(key)
            )
        })
        .collect();

    assert!(differences.is_empty(), "{differences:#?}");
}

fn is_stock(message: &str) -> bool {
    message.starts_with(PACKAGE) && !OWN_MESSAGES.contains(&message)
}

fn our_pool() -> DescriptorPool {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    compile(&root, &root.join("tulle/wire"))
}

/// The crate's package holds the definitions that it is generated from.
fn their_pool() -> DescriptorPool {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata = String::from_utf8(output.stdout).unwrap();
    let manifest = metadata
        .split(r#""manifest_path":""#)
        .filter_map(|after| after.split('"').next())
        .find(|path| path.contains("linkerd2-proxy-api-"))
        .expect("a dev-dependency of this package");
    let root = PathBuf::from(manifest).with_file_name("proto");
    compile(&root, &root)
}

fn compile(root: &PathBuf, folder: &PathBuf) -> DescriptorPool {
    let files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "proto")
        })
        .collect();
    let descriptors = protox::compile(files, [root]).unwrap();
    DescriptorPool::from_file_descriptor_set(descriptors).unwrap()
}

/// Everything that reaches the wire, by full name.
fn shape(pool: &DescriptorPool) -> BTreeMap<String, String> {
    let mut shape = BTreeMap::new();
    for message in pool
        .all_messages()
        .filter(|message| is_stock(message.full_name()))
    {
        shape.insert(message.full_name().to_owned(), "message".to_owned());
        for field in message.fields().filter(|field| field.number() < OWN_FIELDS) {
            let alternative_of = field
                .containing_oneof()
                .map(|oneof| oneof.name().to_owned());
            let says = format!(
                "{} {:?} {:?} of {alternative_of:?}",
                field.number(),
                field.cardinality(),
                field.kind(),
            );
            shape.insert(field.full_name().to_owned(), says);
        }
    }
    for kind in pool.all_enums() {
        for value in kind.values() {
            shape.insert(value.full_name().to_owned(), value.number().to_string());
        }
    }
    for method in pool
        .services()
        .flat_map(|service| service.methods().collect::<Vec<_>>())
    {
        let says = format!(
            "{} {} -> {} {}",
            method.is_client_streaming(),
            method.input().full_name(),
            method.is_server_streaming(),
            method.output().full_name(),
        );
        shape.insert(method.full_name().to_owned(), says);
    }
    shape.retain(|name, _| name.starts_with(PACKAGE));
    shape
}

/// The names of all fields that are set, at any depth.
fn note_fields(message: &DynamicMessage, names: &mut BTreeSet<String>) {
    for (field, value) in message.fields() {
        names.insert(field.full_name().to_owned());
        match value {
            Value::Message(message) => note_fields(message, names),
            Value::List(values) => {
                values
                    .iter()
                    .filter_map(Value::as_message)
                    .for_each(|message| note_fields(message, names));
            }
            _ => {}
        }
    }
}

/// One value for each alternative of the message itself, all fields set; the same with
/// nothing but zeros, which an alternative must still tell from absence; and random ones.
fn values(descriptor: &MessageDescriptor) -> impl Iterator<Item = DynamicMessage> {
    let alternatives = descriptor
        .oneofs()
        .map(|oneof| oneof.fields().len())
        .max()
        .unwrap_or(1) as u64;
    (0..2 * alternatives)
        .chain((0..SEEDS).map(|seed| seed + 1000))
        .map(move |seed| {
            let mut filler = Filler {
                state: seed,
                zeros: seed >= alternatives && seed < 1000,
            };
            let choice = (seed < 1000).then_some(seed);
            filler.message(descriptor, choice, 0)
        })
}

struct Filler {
    state: u64,
    zeros: bool,
}

impl Filler {
    /// Messages nest without end (a match may be the negation of a match); here they do not.
    const DEPTH: usize = 9;

    /// With a choice every field is set; else as chance has it.
    fn message(
        &mut self,
        descriptor: &MessageDescriptor,
        choice: Option<u64>,
        depth: usize,
    ) -> DynamicMessage {
        let mut message = DynamicMessage::new(descriptor.clone());
        let chosen: BTreeSet<u32> = descriptor
            .oneofs()
            .map(|oneof| {
                let fields: Vec<_> = oneof
                    .fields()
                    .filter(|field| field.number() < OWN_FIELDS)
                    .collect();
                let choice = choice.unwrap_or_else(|| self.next());
                fields[usize::try_from(choice % fields.len() as u64).unwrap()].number()
            })
            .collect();
        for field in descriptor
            .fields()
            .filter(|field| field.number() < OWN_FIELDS)
        {
            let wanted = match field.containing_oneof() {
                Some(_) => chosen.contains(&field.number()),
                None => choice.is_some() || !self.next().is_multiple_of(4),
            };
            if !wanted || (depth >= Self::DEPTH && matches!(field.kind(), Kind::Message(_))) {
                continue;
            }
            let value = self.field(&field, choice.is_some(), depth);
            // Elsewhere than in an alternative a zero is the same as absence.
            if field.supports_presence() || !value.is_default_for_field(&field) {
                message.set_field(&field, value);
            }
        }
        message
    }

    fn field(&mut self, field: &FieldDescriptor, all: bool, depth: usize) -> Value {
        if field.is_map() {
            let Kind::Message(entry) = field.kind() else {
                panic!("a map of messages")
            };
            let value = self.single(&entry.map_entry_value_field().kind(), all, depth);
            // One entry, since the order of several is nobody's promise.
            return Value::Map([(MapKey::String(self.text()), value)].into());
        }
        if field.is_list() {
            let length = if all { 2 } else { self.next() % 3 };
            return Value::List(
                (0..length)
                    .map(|_| self.single(&field.kind(), all, depth))
                    .collect(),
            );
        }
        self.single(&field.kind(), all, depth)
    }

    fn single(&mut self, kind: &Kind, all: bool, depth: usize) -> Value {
        match kind {
            Kind::Message(message) => {
                let choice = all.then(|| self.next());
                Value::Message(self.message(message, choice, depth + 1))
            }
            _ if self.zeros => Value::default_value(kind),
            Kind::Bool => Value::Bool(true),
            Kind::Int32 => Value::I32(1 + self.small()),
            Kind::Int64 => Value::I64(i64::from(1 + self.small())),
            Kind::Uint32 | Kind::Fixed32 => Value::U32((self.next() >> 32) as u32 | 1),
            Kind::Uint64 | Kind::Fixed64 => Value::U64(self.next() | 1),
            Kind::Float => Value::F32(f32::from(1 + (self.next() % 1000) as u16) / 8.0),
            Kind::Double => Value::F64(f64::from(1 + self.small()) / 8.0),
            Kind::String => Value::String(self.text()),
            Kind::Bytes => Value::Bytes(Bytes::from(self.next().to_le_bytes().to_vec())),
            Kind::Enum(kind) => {
                let values: Vec<i32> = kind.values().map(|value| value.number()).collect();
                let index = self.next() % values.len() as u64;
                Value::EnumNumber(values[usize::try_from(index).unwrap()])
            }
            other => panic!("{other:?} is new in the protocol"),
        }
    }

    fn text(&mut self) -> String {
        format!("t{}é", self.next() % 1_000_000)
    }

    fn small(&mut self) -> i32 {
        i32::try_from(self.next() % 1_000_000).unwrap()
    }

    /// `SplitMix64`.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
