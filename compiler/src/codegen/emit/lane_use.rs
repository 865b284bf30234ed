//! Which part of a nest's work runs in lanes: what the emitter will decide, for those who explain a profile.

use super::analysis::{Facts, LaneCheck};
use super::function::LANES;
use crate::loops::nest::{Loop, LoopNest, Stmt};
use crate::loops::walk::trips;

/// Statements of a nest by how they run, each counted as often as it does.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LaneUse {
    /// In lanes.
    pub lanes: f64,
    /// Of these, those of loops that gather some operand element by element.
    pub gathering: f64,
    /// One by one, with the reason of the first loop that does.
    pub single: f64,
    /// Why the loop with the most of them runs one by one.
    pub reason: &'static str,
    most: f64,
}

impl LaneUse {
    /// How the loops of `nest` run.
    pub fn of(nest: &LoopNest) -> LaneUse {
        let mut counter =
            Counter { nest, facts: Facts::of_pool(nest), values: vec![0; nest.vars.len()], found: LaneUse::default() };
        counter.block(&nest.body, nest.tiles as f64, None);
        counter.found
    }
}

struct Counter<'a> {
    nest: &'a LoopNest,
    facts: Vec<Facts>,
    values: Vec<i64>,
    found: LaneUse,
}

/// What is known of the innermost loop around a statement.
#[derive(Clone, Copy)]
enum Around {
    Lanes { gathers: bool },
    Single { reason: &'static str },
}

impl Counter<'_> {
    fn block(&mut self, stmts: &[Stmt], times: f64, around: Option<Around>) {
        for stmt in stmts {
            match stmt {
                Stmt::Loop(node) => {
                    let trips = trips(node, &mut self.values);
                    let inner = match around {
                        Some(Around::Lanes { .. }) => around,
                        _ => Some(self.decide(node, trips)),
                    };
                    self.block(&node.body, times * trips as f64, inner);
                }
                Stmt::If { then, otherwise, .. } => {
                    self.block(then, times, around);
                    self.block(otherwise, times, around);
                }
                Stmt::Check { body, .. } => self.block(body, times, around),
                Stmt::Let { .. } | Stmt::Set { .. } | Stmt::Store { .. } => self.add(times, around),
                Stmt::Call { .. } => {}
            }
        }
    }

    fn decide(&self, node: &Loop, trips: u64) -> Around {
        if trips < LANES as u64 {
            return Around::Single { reason: "fewer iterations than lanes" };
        }
        if !node.vector {
            return Around::Single { reason: "the order of its iterations matters" };
        }
        match LaneCheck::gathers(self.nest, &self.facts, node) {
            Some(gathers) => Around::Lanes { gathers: gathers > 0 },
            None => Around::Single { reason: "no access is contiguous, or an index is checked" },
        }
    }

    fn add(&mut self, times: f64, around: Option<Around>) {
        match around {
            Some(Around::Lanes { gathers }) => {
                self.found.lanes += times;
                self.found.gathering += if gathers { times } else { 0.0 };
            }
            Some(Around::Single { reason }) => {
                self.found.single += times;
                if times > self.found.most {
                    (self.found.most, self.found.reason) = (times, reason);
                }
            }
            // Outside of all loops: once a tile.
            None => {}
        }
    }
}
