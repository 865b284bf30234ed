//! stub
use super::{Placement, SlotStorage};
pub(crate) struct Outcome { pub(crate) placement: Option<Placement>, pub(crate) proved_bound: u64 }
pub(crate) fn improve(_s: &[SlotStorage], _peak: u64, lower: u64, _enough: u64, _nodes: u64) -> Outcome { Outcome { placement: None, proved_bound: lower } }
