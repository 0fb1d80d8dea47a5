//! Models on their way in: what is expected, what may come, and what is kept of a transfer that broke off.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use starling_net::{IncomingBlob, ReceiveError, TransferError, resume_offset};
use starling_spec::TaskPlan;
use starling_update::{codec_id, version_len};
use starling_wire::{BlobHeader, BlobKind, Digest, Fetch, ModelRef, Refusal, RunId, TaskId};

use crate::worker::parameters;

/// How long a model's transfer may stand still.
pub(crate) const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// The models that are being fetched, at most one a run.
#[derive(Default)]
pub(crate) struct Downloads {
    expected: BTreeMap<RunId, Expected>,
}

struct Expected {
    task: TaskId,
    base: ModelRef,
    held: Option<Digest>,
    receiving: bool,
    partial: Option<Partial>,
}

/// The first bytes of a body whose transfer broke off with its connection.
struct Partial {
    kind: BlobKind,
    digest: Digest,
    length: u64,
    bytes: Vec<u8>,
}

/// What has come of a transfer.
pub(crate) enum Arrival {
    /// The version itself.
    Model { task: TaskId, base: ModelRef, bytes: Bytes },
    /// A difference that leads to it from the version held.
    Difference { base: ModelRef, bytes: Bytes },
    /// Nothing usable.
    Failed { base: ModelRef },
    /// The connection broke: the fetch starts over with the next round start, from where it was.
    Interrupted,
}

impl Downloads {
    /// Expects a model. The fetch that comes back resumes where an earlier transfer of the same model broke off.
    ///
    /// `None` when the model's size or codec is not what the plan fixes (invariant 8): it is not asked for.
    pub(crate) fn begin(&mut self, task: TaskId, fetch: Fetch, base: ModelRef, plan: &TaskPlan) -> Option<Fetch> {
        let length = version_len(plan.update.down, parameters(plan)?)?;
        if base.length != u64::try_from(length).ok()? || base.codec != codec_id(plan.update.down) {
            tracing::warn!(run = %fetch.run, version = base.version, "the model's size or codec is not the plan's");
            return None;
        }
        let same = |before: &Expected| before.base == base && before.held == fetch.held;
        let partial = self.expected.remove(&fetch.run).filter(same).and_then(|before| before.partial);
        let offset = partial.as_ref().map_or(0, |partial| resume_offset(partial.bytes.len()));
        self.expected.insert(fetch.run, Expected { task, base, held: fetch.held, receiving: false, partial });
        Some(Fetch { offset, ..fetch })
    }

    /// Whether the blob of this header is one that was asked for; then the bytes of it that are here already, and the
    /// most bytes that it may have.
    pub(crate) fn admit(&mut self, header: &BlobHeader) -> Result<(Vec<u8>, u64), Refusal> {
        let expected = self.expected.get_mut(&header.run).filter(|expected| !expected.receiving);
        let expected = expected.ok_or(Refusal::UnknownBlob)?;
        let base = &expected.base;
        if header.codec != base.codec {
            return Err(Refusal::CodecMismatch);
        }
        match header.kind {
            BlobKind::Model if header.length != base.length => return Err(Refusal::LengthMismatch),
            BlobKind::Model if header.digest != base.digest => return Err(Refusal::DigestMismatch),
            BlobKind::Model => {}
            BlobKind::Difference if expected.held.is_none() => return Err(Refusal::UnknownBlob),
            BlobKind::Difference if header.length >= base.length => return Err(Refusal::LengthMismatch),
            BlobKind::Difference => {}
            _ => return Err(Refusal::UnknownBlob),
        }
        let kept = match expected.partial.take() {
            Some(partial) if header.offset > 0 => {
                if (partial.kind, partial.digest, partial.length) != (header.kind, header.digest, header.length) {
                    return Err(Refusal::DigestMismatch);
                }
                partial.bytes
            }
            _ => Vec::new(),
        };
        expected.receiving = true;
        Ok((kept, base.length))
    }

    /// A transfer that was admitted has ended, well or not.
    pub(crate) fn complete(
        &mut self,
        header: &BlobHeader,
        result: Result<(Bytes, Digest), ReceiveError>,
    ) -> Option<Arrival> {
        let expected = self.expected.remove(&header.run).filter(|expected| expected.receiving)?;
        let Expected { task, base, .. } = expected;
        Some(match result {
            Ok((bytes, computed)) if computed == header.digest => match header.kind {
                BlobKind::Difference => Arrival::Difference { base, bytes },
                _ => Arrival::Model { task, base, bytes },
            },
            Ok(_) => {
                tracing::warn!(run = %header.run, "a model's bytes do not have the digest in their header");
                Arrival::Failed { base }
            }
            Err(ReceiveError { cause: TransferError::Closed(_), kept }) => {
                let partial = Partial { kind: header.kind, digest: header.digest, length: header.length, bytes: kept };
                let expected = Expected { receiving: false, partial: Some(partial), ..expected };
                self.expected.insert(header.run, expected);
                Arrival::Interrupted
            }
            Err(error) => {
                tracing::warn!(run = %header.run, error = %error.cause, "a model's transfer failed");
                Arrival::Failed { base }
            }
        })
    }

    /// The run is over.
    pub(crate) fn forget(&mut self, run: RunId) {
        self.expected.remove(&run);
    }
}

/// Receives an admitted blob.
pub(crate) async fn receive(
    blob: IncomingBlob,
    kept: Vec<u8>,
    length_max: u64,
) -> (BlobHeader, Result<(Bytes, Digest), ReceiveError>) {
    let header = blob.header().clone();
    let result = blob.receive_onto(kept, PROGRESS_TIMEOUT, length_max).await;
    (header, result)
}

#[cfg(test)]
mod tests {
    use starling_net::CloseReason;
    use starling_spec::TaskFile;
    use starling_wire::CodecId;

    use super::*;

    const CODEC: CodecId = CodecId { family: 1, parameter: 0 };
    const TASK: TaskId = TaskId([1; 16]);

    fn plan() -> TaskPlan {
        let text = r#"
            name = "t"
            kind = "classification"
            [data]
            format = "csv"
            train = "t.csv"
            shape = [999]
            [model]
            layers = [{ linear = { out = 2 } }]
        "#;
        TaskPlan::new(&TaskFile::parse(text, &[]).expect("a task"), 1).expect("a plan")
    }

    /// 2,000 parameters in f32.
    fn base() -> ModelRef {
        ModelRef { version: 3, digest: Digest([3; 32]), length: 8000, codec: CODEC }
    }

    fn fetch(held: Option<Digest>) -> Fetch {
        Fetch { run: RunId(1), digest: base().digest, held, offset: 0 }
    }

    fn header(kind: BlobKind, length: u64, digest: Digest) -> BlobHeader {
        BlobHeader { kind, codec: CODEC, run: RunId(1), round: 4, attempt: 1, offset: 0, length, digest }
    }

    fn expecting(held: Option<Digest>) -> Downloads {
        let mut downloads = Downloads::default();
        assert_eq!(downloads.begin(TASK, fetch(held), base(), &plan()), Some(fetch(held)));
        downloads
    }

    #[test]
    fn inv8_only_what_was_asked_for_is_admitted() {
        let model = header(BlobKind::Model, 8000, base().digest);
        let difference = header(BlobKind::Difference, 70, Digest([9; 32]));
        assert_eq!(Downloads::default().admit(&model), Err(Refusal::UnknownBlob));
        let admit = |held, header: &BlobHeader| expecting(held).admit(header).map(|(_, length_max)| length_max);
        assert_eq!(admit(None, &model), Ok(8000));
        assert_eq!(admit(Some(Digest([2; 32])), &model), Ok(8000), "whole where no difference is at hand");
        assert_eq!(admit(Some(Digest([2; 32])), &difference), Ok(8000));
        assert_eq!(admit(None, &difference), Err(Refusal::UnknownBlob), "nothing is held that it could start from");
        assert_eq!(admit(None, &BlobHeader { length: 4 << 30, ..model.clone() }), Err(Refusal::LengthMismatch));
        let vast = BlobHeader { length: 4 << 30, ..difference };
        assert_eq!(admit(Some(Digest([2; 32])), &vast), Err(Refusal::LengthMismatch));
        assert_eq!(admit(None, &BlobHeader { digest: Digest([4; 32]), ..model.clone() }), Err(Refusal::DigestMismatch));
        assert_eq!(admit(None, &BlobHeader { kind: BlobKind::Update, ..model.clone() }), Err(Refusal::UnknownBlob));
        let mut downloads = expecting(None);
        downloads.admit(&model).expect("the first");
        assert_eq!(downloads.admit(&model), Err(Refusal::UnknownBlob), "one at a time");
    }

    #[test]
    fn inv8_a_model_that_is_not_the_plans_is_not_asked_for() {
        for wrong in
            [ModelRef { length: 8004, ..base() }, ModelRef { codec: CodecId { family: 2, parameter: 0 }, ..base() }]
        {
            assert_eq!(Downloads::default().begin(TASK, fetch(None), wrong, &plan()), None);
        }
    }

    #[test]
    fn a_transfer_goes_on_where_its_connection_broke() {
        let model = header(BlobKind::Model, 8000, base().digest);
        let broken = || {
            let mut downloads = expecting(None);
            downloads.admit(&model).expect("asked for");
            let reason = CloseReason { refusal: None, by_peer: false, text: "silence".into() };
            let error = ReceiveError { cause: TransferError::Closed(reason), kept: vec![7; 3000] };
            assert!(matches!(downloads.complete(&model, Err(error)), Some(Arrival::Interrupted)));
            downloads
        };
        let mut downloads = broken();
        let resumed = downloads.begin(TASK, fetch(None), base(), &plan()).expect("the plan's");
        assert_eq!(resumed.offset, 2048, "whole units of 1 KiB");
        let (kept, _) = downloads.admit(&BlobHeader { offset: 2048, ..model.clone() }).expect("asked for");
        assert_eq!(kept.len(), 3000);
        let whole = Ok((Bytes::from_static(b"model"), base().digest));
        assert!(matches!(downloads.complete(&model, whole), Some(Arrival::Model { .. })));

        // Another version, or from another one, starts anew.
        let newer = ModelRef { version: 4, digest: Digest([4; 32]), ..base() };
        let fetch_newer = Fetch { digest: newer.digest, ..fetch(None) };
        assert_eq!(broken().begin(TASK, fetch_newer, newer, &plan()).map(|fetch| fetch.offset), Some(0));
        let held = fetch(Some(Digest([2; 32])));
        assert_eq!(broken().begin(TASK, held, base(), &plan()).map(|fetch| fetch.offset), Some(0));
    }

    #[test]
    fn bytes_of_another_digest_are_no_model() {
        let model = header(BlobKind::Model, 8000, base().digest);
        let mut downloads = expecting(None);
        downloads.admit(&model).expect("asked for");
        let other = Ok((Bytes::from_static(b"other"), Digest([8; 32])));
        assert!(matches!(downloads.complete(&model, other), Some(Arrival::Failed { .. })));
    }
}
