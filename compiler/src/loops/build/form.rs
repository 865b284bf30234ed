//! The form that a region must have to be one nest: a row program, or the reason why it is none.

use kiln_ir::body::{Affine, Body, IndexExpr, Map, Read};
use kiln_ir::graph::{Graph, Value};
use kiln_ir::types::Extents;

use super::{Declined, body_of};

/// Loop structure of a region.
#[derive(Clone, Debug, PartialEq)]
pub struct RowForm {
    /// Extents of the rows; without reductions a row is an element.
    pub rows: Extents,
    /// Extents of the reduced dimensions.
    pub reduced: Extents,
    /// If results or members per element exist beside reductions: where each of their dimensions comes from.
    pub element: Option<Vec<Source>>,
    /// Members that reduce, in order, in stages that share a loop.
    pub stages: Vec<Vec<Value>>,
}

/// Where a dimension of the element shape comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Dimension of the rows.
    Row(usize),
    /// Reduced dimension.
    Reduced(usize),
}

impl RowForm {
    /// Whether a value has one element per row: by its extents, or as a reduction, whose parallel dimensions may split
    /// those of the result (a grouped convolution).
    pub(super) fn is_per_row(&self, region: &Graph, value: Value) -> bool {
        region.ty(value).extents() == self.rows || self.stages.iter().flatten().any(|&reduced| reduced == value)
    }

    /// Numbers of the results that have one element per row.
    pub(super) fn per_row(&self, region: &Graph) -> Vec<usize> {
        let returns = region.returns();
        (0..returns.len()).filter(|&result| self.is_per_row(region, returns[result])).collect()
    }

    /// Numbers of the others, which have one per row and reduced position.
    pub(super) fn per_element(&self, region: &Graph) -> Vec<usize> {
        let returns = region.returns();
        (0..returns.len()).filter(|&result| !self.is_per_row(region, returns[result])).collect()
    }

    /// Whether a result per element depends on a reduction.
    pub(super) fn has_late_elements(&self, region: &Graph) -> bool {
        let mut late = vec![false; region.value_count()];
        self.stages.iter().flatten().for_each(|value| late[value.index()] = true);
        for (_, data) in region.nodes() {
            if data.operands.iter().any(|value| late[value.index()]) {
                data.results.iter().for_each(|value| late[value.index()] = true);
            }
        }
        self.per_element(region).iter().any(|&result| late[region.returns()[result].index()])
    }

    /// Extents of one element per row and reduced position.
    pub fn element_extents(&self) -> Option<Extents> {
        let extent = |source: &Source| match *source {
            Source::Row(d) => self.rows[d],
            Source::Reduced(d) => self.reduced[d],
        };
        Some(self.element.as_ref()?.iter().map(extent).collect())
    }
}

/// The row form of a region.
///
/// # Errors
/// What stands in the way of one nest.
pub fn row_form(region: &Graph) -> Result<RowForm, Declined> {
    let maps = region.nodes().map(|(_, data)| match body_of(region, data) {
        Body::Map(map) => Ok(map),
        _ => Err(Declined::Body),
    });
    let maps: Vec<Map> = maps.collect::<Result<_, _>>()?;
    row_form_of(region, &maps.iter().collect::<Vec<_>>())
}

/// As [`row_form`], with the bodies of the region's nodes at hand.
///
/// # Errors
/// As [`row_form`].
pub fn row_form_of(region: &Graph, maps: &[&Map]) -> Result<RowForm, Declined> {
    let reducers: Vec<usize> = (0..maps.len()).filter(|&m| !maps[m].reduce.is_empty()).collect();
    let form = match reducers.split_first() {
        None => {
            let rows = region.returns().first().map(|&v| region.ty(v).extents()).ok_or(Declined::Domain)?;
            RowForm { rows, reduced: Extents::new(), element: None, stages: Vec::new() }
        }
        Some((&first, rest)) => {
            let form = RowForm {
                rows: rows_of(region, first, maps[first]),
                reduced: maps[first].reduce.clone(),
                element: element_of(region, first, maps[first]),
                stages: stages(region, &reducers),
            };
            for &other in rest {
                let map = maps[other];
                let parallel = map.parallel == form.rows && map.parallel == maps[first].parallel;
                let same = parallel && map.reduce == form.reduced;
                if !same || element_of(region, other, map) != form.element || form.element.is_none() {
                    return Err(Declined::Reductions);
                }
            }
            form
        }
    };
    check_results(region, &form)?;
    check_row_reads(region, &form, maps)?;
    Ok(form)
}

/// Rows of a reduction: its parallel dimensions, or those of the result where they split them and other members read
/// the result.
fn rows_of(region: &Graph, member: usize, map: &Map) -> Extents {
    match region.node_at(member) {
        Some((_, data)) if region.nodes().len() > 1 => region.ty(data.results[0]).extents(),
        _ => map.parallel.clone(),
    }
}

fn check_results(region: &Graph, form: &RowForm) -> Result<(), Declined> {
    let element = form.element_extents();
    let per_element = |v: Value| element.as_ref().is_some_and(|element| *element == region.ty(v).extents());
    let all = region.returns().iter().all(|&v| form.is_per_row(region, v) || per_element(v));
    if all { Ok(()) } else { Err(Declined::Domain) }
}

/// Reads of anything that depends on a reduction must stay in their row and, per element, at their element.
fn check_row_reads(region: &Graph, form: &RowForm, maps: &[&Map]) -> Result<(), Declined> {
    let mut tainted = vec![false; region.value_count()];
    let element = form.element_extents();
    for (node, data) in region.nodes() {
        let map = maps[node.index()];
        let reads_taint = data.operands.iter().any(|v| tainted[v.index()]);
        let reduces = !map.reduce.is_empty();
        if reads_taint {
            // Dimensions of the reader that are the row, and those that are the element.
            let (row_dims, element_dims): (Vec<usize>, Vec<usize>) = if reduces {
                let dims = form.element.iter().flatten().map(|s| match *s {
                    Source::Row(d) => d,
                    Source::Reduced(d) => form.rows.len() + d,
                });
                ((0..form.rows.len()).collect(), dims.collect())
            } else if map.parallel == form.rows {
                ((0..form.rows.len()).collect(), Vec::new())
            } else if Some(&map.parallel) == element.as_ref() {
                (row_dims_of_element(form), (0..map.parallel.len()).collect())
            } else {
                return Err(Declined::Row);
            };
            for read in map.reads.iter().filter(|r| tainted[data.operands[r.operand].index()]) {
                let extents = region.ty(data.operands[read.operand]).extents();
                let wanted = if extents == form.rows { &row_dims } else { &element_dims };
                if read.view.is_some() || !reads_exactly(read, wanted, &extents) {
                    return Err(Declined::Row);
                }
            }
        }
        if reads_taint || reduces {
            data.results.iter().for_each(|v| tainted[v.index()] = true);
        }
    }
    Ok(())
}

fn row_dims_of_element(form: &RowForm) -> Vec<usize> {
    let sources = form.element.as_deref().unwrap_or_default();
    let place = |row: usize| sources.iter().position(|s| *s == Source::Row(row));
    (0..form.rows.len()).filter_map(place).collect()
}

/// Whether a read is at these dimensions; one of extent 1 has only position 0, which a broadcast reads as such.
fn reads_exactly(read: &Read, dims: &[usize], extents: &[usize]) -> bool {
    let at = |(index, (&dim, &extent)): (&IndexExpr, (&usize, &usize))| {
        let IndexExpr::Affine(affine) = index else { return false };
        *affine == Affine::dim(dim) || extent == 1 && *affine == Affine::constant(0)
    };
    read.index.len() == dims.len() && read.index.iter().zip(dims.iter().zip(extents)).all(at)
}

/// The element shape of a reduction: an operand read once per row and reduced position, and nowhere else.
fn element_of(region: &Graph, member: usize, map: &Map) -> Option<Vec<Source>> {
    let (_, data) = region.nodes().nth(member)?;
    let rows = map.parallel.len();
    let total = rows + map.reduce.len();
    if map.parallel != rows_of(region, member, map) {
        return None;
    }
    map.reads.iter().find_map(|read| {
        let extents = region.ty(data.operands[read.operand]).extents();
        let dims: Vec<usize> = read.index.iter().map(pure_dim).collect::<Option<_>>()?;
        let each_once = dims.len() == total && (0..total).all(|d| dims.contains(&d));
        let all = map.extents();
        let whole = read.view.is_none() && dims.iter().zip(&extents).all(|(&d, &e)| all[d] == e);
        let source = |d: usize| if d < rows { Source::Row(d) } else { Source::Reduced(d - rows) };
        (each_once && whole).then(|| dims.into_iter().map(source).collect())
    })
}

fn pure_dim(index: &IndexExpr) -> Option<usize> {
    match index {
        IndexExpr::Affine(a) if a.offset == 0 && a.divisor == 1 => match a.terms.as_slice() {
            [(dim, 1)] => Some(*dim),
            _ => None,
        },
        _ => None,
    }
}

/// Reductions that do not depend on each other share a loop.
fn stages(region: &Graph, reducers: &[usize]) -> Vec<Vec<Value>> {
    let mut stages: Vec<Vec<Value>> = Vec::new();
    // Number of stages that must have run before a value can be computed.
    let mut depth = vec![0usize; region.value_count()];
    for (node, data) in region.nodes() {
        let needed = data.operands.iter().map(|v| depth[v.index()]).max().unwrap_or(0);
        let reduces = reducers.contains(&node.index());
        data.results.iter().for_each(|v| depth[v.index()] = needed + usize::from(reduces));
        if reduces {
            if stages.len() <= needed {
                stages.resize(needed + 1, Vec::new());
            }
            stages[needed].push(data.results[0]);
        }
    }
    stages
}
