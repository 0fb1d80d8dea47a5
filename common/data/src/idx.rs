//! LeCun's IDX: a magic number (two zero bytes, a type, the number of dimensions), big-endian sizes, big-endian values.
//! <http://yann.lecun.com/exdb/mnist/>

use std::io::Read;

use starling_spec::TaskKind;

use crate::dataset::{Features, Labels};
use crate::error::DataError;
use crate::load::Raw;
use crate::source::Source;
use crate::table::LabelColumn;

/// Dimensions that an array may have: no sample of ours has more than channels, height and width.
const DIMENSIONS_MAX: u8 = 8;
/// Values are converted in pieces of so many bytes; a multiple of every value's size.
const PIECE_BYTES: usize = 64 * 1024;

/// The type of an array's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ValueType {
    U8,
    I8,
    I16,
    I32,
    F32,
    F64,
}

impl ValueType {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            0x08 => Self::U8,
            0x09 => Self::I8,
            0x0b => Self::I16,
            0x0c => Self::I32,
            0x0d => Self::F32,
            0x0e => Self::F64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Self::U8 | Self::I8 => 1,
            Self::I16 => 2,
            Self::I32 | Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    /// The largest value of the type, by which `scale = "unit"` divides; floats have none that would make sense.
    fn max(self) -> Option<f32> {
        match self {
            Self::U8 => Some(255.0),
            Self::I8 => Some(127.0),
            Self::I16 => Some(32_767.0),
            Self::I32 => Some(2_147_483_647.0),
            Self::F32 | Self::F64 => None,
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "values are kept in single precision")]
    fn value(self, bytes: &[u8]) -> f32 {
        fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
            bytes.try_into().expect("pieces are cut to the size of a value")
        }
        match self {
            Self::U8 => f32::from(bytes[0]),
            Self::I8 => f32::from(i8::from_be_bytes(array(bytes))),
            Self::I16 => f32::from(i16::from_be_bytes(array(bytes))),
            Self::I32 => i32::from_be_bytes(array(bytes)) as f32,
            Self::F32 => f32::from_be_bytes(array(bytes)),
            Self::F64 => f64::from_be_bytes(array(bytes)) as f32,
        }
    }
}

/// What stands before the values, checked against what the file can hold.
struct Header {
    kind: ValueType,
    sizes: Vec<usize>,
    values: usize,
}

/// Reads samples and their labels.
pub(crate) fn read(
    mut samples: Source,
    mut labels: Source,
    kind: TaskKind,
    sample_len: usize,
) -> Result<Raw, DataError> {
    let head = header(&mut samples)?;
    let rows = head.sizes[0];
    let found: usize = head.sizes[1..].iter().product();
    if found != sample_len {
        let problem = format!("{found} values a sample ({:?}), but data.shape has {sample_len}", &head.sizes[1..]);
        return Err(DataError::file(&samples.name, problem));
    }
    let label_head = header(&mut labels)?;
    if label_head.sizes != [rows] {
        let problem =
            format!("labels of sizes {:?}; expected [{rows}], one for each of {}", label_head.sizes, samples.name);
        return Err(DataError::file(&labels.name, problem));
    }
    let features = match head.kind {
        ValueType::U8 => Features::Bytes(bytes(&mut samples, &head)?),
        _ => {
            let mut values = Vec::new();
            reserve(&samples, &mut values, head.values)?;
            convert(&mut samples, &head, |value| {
                values.push(value);
                if value.is_finite() { Ok(()) } else { Err("a finite number") }
            })?;
            Features::Floats(values)
        }
    };
    end(&mut samples)?;
    let mut column = LabelColumn::new(kind);
    convert(&mut labels, &label_head, |value| column.push_value(value))?;
    end(&mut labels)?;
    let labels: Labels = column.finish();
    Ok(Raw { features, labels, clients: None, type_max: head.kind.max() })
}

/// The largest value of the type of an array's values, where it has one. Only the header is read.
pub(crate) fn type_max(mut samples: Source) -> Result<Option<f32>, DataError> {
    Ok(header(&mut samples)?.kind.max())
}

fn header(source: &mut Source) -> Result<Header, DataError> {
    let mut magic = [0u8; 4];
    source.read_exact(&mut magic)?;
    let kind = ValueType::of(magic[2]).filter(|_| magic[..2] == [0, 0] && (1..=DIMENSIONS_MAX).contains(&magic[3]));
    let kind = kind.ok_or_else(|| {
        let problem =
            format!("starts with {magic:02x?}; expected IDX: 00 00, a type (08 for bytes), 1 to 8 dimensions");
        DataError::file(&source.name, problem)
    })?;
    let mut sizes = Vec::with_capacity(magic[3].into());
    for _ in 0..magic[3] {
        let mut size = [0u8; 4];
        source.read_exact(&mut size)?;
        sizes.push(crate::dataset::index(u32::from_be_bytes(size)));
    }
    let values = sizes.iter().try_fold(1usize, |product, size| product.checked_mul(*size));
    let length = values.and_then(|values| values.checked_mul(kind.bytes())).map(|length| length as u64);
    let room = source.length_max.saturating_sub(4 + 4 * u64::from(magic[3]));
    match (values, length) {
        (Some(values), Some(length)) if length <= room => Ok(Header { kind, sizes, values }),
        _ => {
            let problem =
                format!("declares sizes {sizes:?} of {} bytes a value, more than its length holds", kind.bytes());
            Err(DataError::file(&source.name, problem))
        }
    }
}

fn reserve<T>(source: &Source, values: &mut Vec<T>, count: usize) -> Result<(), DataError> {
    let full = |_| DataError::file(&source.name, format!("{count} values do not fit into memory"));
    values.try_reserve_exact(count).map_err(full)
}

fn bytes(source: &mut Source, head: &Header) -> Result<Vec<u8>, DataError> {
    let mut values = Vec::new();
    reserve(source, &mut values, head.values)?;
    let read = source.by_ref().take(head.values as u64).read_to_end(&mut values);
    read.map_err(|error| DataError::io(&source.name, error))?;
    if values.len() < head.values {
        let problem = format!("ends after {} values; its sizes {:?} declare {}", values.len(), head.sizes, head.values);
        return Err(DataError::file(&source.name, problem));
    }
    Ok(values)
}

fn convert(
    source: &mut Source,
    head: &Header,
    mut put: impl FnMut(f32) -> Result<(), &'static str>,
) -> Result<(), DataError> {
    let width = head.kind.bytes();
    let mut piece = vec![0u8; PIECE_BYTES.min(head.values * width)];
    let mut done = 0;
    while done < head.values {
        let count = (head.values - done).min(PIECE_BYTES / width);
        let piece = &mut piece[..count * width];
        source.reader.read_exact(piece).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => {
                let problem = format!("ends early; its sizes {:?} declare {} values", head.sizes, head.values);
                DataError::file(&source.name, problem)
            }
            _ => DataError::io(&source.name, error),
        })?;
        for (place, bytes) in piece.chunks_exact(width).enumerate() {
            let value = head.kind.value(bytes);
            put(value).map_err(|expected| {
                let problem = format!("value {} (from 0) is {value}; expected {expected}", done + place);
                DataError::file(&source.name, problem)
            })?;
        }
        done += count;
    }
    Ok(())
}

fn end(source: &mut Source) -> Result<(), DataError> {
    if source.at_end()? {
        return Ok(());
    }
    Err(DataError::file(&source.name, "goes on after the values that its sizes declare"))
}
