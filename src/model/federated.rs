//! stub
use crate::task_input::TaskInput;
use anyhow::Result;
use indicatif::ProgressBar;
use starling_compress::{InputRange, Release};
use starling_model::Evaluated;
use starling_search::{FineTune, Model, SearchError, Tuner};
pub(super) struct FederatedTuner;
impl FederatedTuner {
    pub(super) fn new(_: &TaskInput, _: ProgressBar) -> Result<Self> {
        anyhow::bail!("not yet")
    }
}
impl Tuner for FederatedTuner {
    fn evaluate(&mut self, _: &Model) -> Result<Evaluated, SearchError> {
        todo!()
    }
    fn evaluate_release(&mut self, _: &Release) -> Result<Evaluated, SearchError> {
        todo!()
    }
    fn loss(&mut self, _: &Model) -> Result<f64, SearchError> {
        todo!()
    }
    fn gradient(&mut self, _: &Model) -> Result<Vec<f32>, SearchError> {
        todo!()
    }
    fn fine_tune(&mut self, _: &mut Model, _: &FineTune<'_>) -> Result<(), SearchError> {
        todo!()
    }
    fn calibrate(&mut self, _: &Release) -> Result<Vec<Option<InputRange>>, SearchError> {
        todo!()
    }
    fn inputs(&mut self, _: usize) -> Vec<f32> {
        Vec::new()
    }
    fn judged_on(&self) -> String {
        todo!()
    }
}
