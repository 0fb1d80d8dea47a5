//! The head of a release: what the model is called, takes and consists of, as JSON, deflated (RFC 1951) against a dictionary that
//! every reader has, because the words of a head are nearly always the same.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use serde::{Deserialize, Serialize};
use starling_spec::{Layer, Scale, Standardisation, TaskKind};

/// The longest head, as JSON: 1,024 layers of 128 bytes, as much for what thousands of features are standardised by, and room.
const HEAD_MAX: usize = 1 << 18;

/// What precedes every head in the deflate window. It is part of the format: changing it is a new version.
const DICTIONARY: &[u8] = br#"{"gru":{"out":{"self_attention":{"heads":4,"causal":true}},{"embedding":{"tokens":256,"out":64,"positions":false}},{"group_norm":{"groups":8}},"layer_norm","gelu","tanh","sigmoid",{"depthwise_conv2d":{"kernel":3,"stride":1,"padding":"same","bias":true}},{"avg_pool1d":{"conv1d":{"out":32,"kernel":3,"stride":1,"padding":"same","bias":false}},{"max_pool1d":{"avg_pool2d":{"size":2,"stride":2}},"global_avg_pool",{"dropout":0.1},{"residual":{"layers":["batch_norm","sign",{"linear":{"out":1024,"bias":true,"binary":true}},{"conv2d":{"out":64,"kernel":3,"stride":1,"padding":"same","bias":false}},"batch_norm","relu"]}},{"name":"mnist","kind":"next-token","kind":"regression","kind":"classification","shape":[1,28,28],"scale":"standardise","scale":"none","scale":"unit","layers":[{"conv2d":{"out":20,"kernel":5,"stride":1,"padding":"valid","bias":true}},{"max_pool2d":{"size":2,"stride":2}},"flatten",{"linear":{"out":500,"bias":true}},"relu",{"linear":{"out":300,"bias":true}},"relu",{"linear":{"out":100,"bias":true}},"relu",{"linear":{"out":10,"bias":true}}]}"#;

/// What the head says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Head {
    pub(super) name: String,
    pub(super) kind: TaskKind,
    pub(super) shape: Vec<usize>,
    pub(super) scale: Scale,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) standardise: Option<Standardisation>,
    pub(super) layers: Vec<Layer>,
}

impl Head {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let json = serde_json::to_vec(self).expect("a head holds nothing that JSON cannot say");
        let mut deflate = Compress::new(Compression::best(), false);
        let mut bytes = Vec::with_capacity(2 * DICTIONARY.len() + json.len() + 1024);
        deflate.compress_vec(DICTIONARY, &mut bytes, FlushCompress::Sync).expect("deflate takes any bytes");
        assert_eq!(deflate.total_in(), DICTIONARY.len() as u64, "there is room for the dictionary");
        let dictionary = bytes.len();
        loop {
            let taken = usize::try_from(deflate.total_in()).expect("a head is short") - DICTIONARY.len();
            bytes.reserve(1024);
            let status = deflate.compress_vec(&json[taken..], &mut bytes, FlushCompress::Finish);
            if status.expect("deflate takes any bytes") == Status::StreamEnd {
                return bytes.split_off(dictionary);
            }
        }
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut inflate = Decompress::new(false);
        let mut plain = Vec::with_capacity(DICTIONARY.len() + 1024);
        // The dictionary as a block that is stored as it is.
        let length = u16::try_from(DICTIONARY.len()).expect("a short dictionary");
        let mut stored = vec![0];
        stored.extend(length.to_le_bytes());
        stored.extend((!length).to_le_bytes());
        stored.extend(DICTIONARY);
        inflate.decompress_vec(&stored, &mut plain, FlushDecompress::None).map_err(|error| error.to_string())?;
        let mut rest = bytes;
        loop {
            let (before, written) = (inflate.total_in(), plain.len());
            let status =
                inflate.decompress_vec(rest, &mut plain, FlushDecompress::None).map_err(|error| error.to_string())?;
            let taken = usize::try_from(inflate.total_in() - before).map_err(|error| error.to_string())?;
            rest = &rest[taken..];
            if status == Status::StreamEnd {
                break;
            }
            if plain.len() > DICTIONARY.len() + HEAD_MAX {
                return Err(format!("it is longer than {HEAD_MAX} bytes"));
            }
            let room = plain.len() < plain.capacity();
            if room && (rest.is_empty() || (taken == 0 && plain.len() == written)) {
                return Err("it ends early".into());
            }
            if !room {
                plain.reserve(plain.len());
            }
        }
        if !rest.is_empty() {
            return Err("it holds more than a head".into());
        }
        let json = plain.get(DICTIONARY.len()..).unwrap_or_default();
        serde_json::from_slice(json).map_err(|error| error.to_string())
    }
}
