//! The CSV files of MiniMalloc: problems in, plans out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::problem::{Buffer, Fault, Problem};
use super::solver::Plan;

/// Header of the files written by [`write_plan`].
pub const PLAN_HEADER: &str = "id,lower,upper,size,offset,alias_of";

/// Reads a problem: a header naming the columns `id`, `lower`, `upper` and `size` in any order, then one buffer
/// per line, live for `lower <= step < upper`. Offsets need no alignment unless an `alignment` column asks for one;
/// a `gaps` column is accepted as long as it is empty. What [`write_plan`] wrote is read back; of
/// its offsets only where aliases begin in what they share is kept.
///
/// # Errors
/// `memory.F1` header, `memory.F2` number of fields, `memory.F3` a field that is no number, `memory.F4` a name used
/// twice, `memory.F5` an alias of nobody, `memory.F6` a feature of the format that is not supported; each with its
/// line, and all of a file's faults at once. Then the faults of [`Problem::new`].
pub fn read_problem(text: &str) -> Result<Problem, Vec<Fault>> {
    let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty());
    let Some((number, header)) = lines.next() else {
        return Err(vec![Fault::new(
            "memory.F1",
            "line 1: the file is empty; start it with `id,lower,upper,size`".into(),
        )]);
    };
    let columns = Columns::parse(number, header).map_err(|fault| vec![fault])?;
    let mut rows = Vec::new();
    let mut faults = Vec::new();
    for (number, line) in lines {
        match columns.row(number, line) {
            Ok(row) => rows.push(row),
            Err(found) => faults.extend(found),
        }
    }
    let buffers = resolve_names(&rows, &mut faults);
    if !faults.is_empty() {
        return Err(faults);
    }
    let alignment = rows.iter().map(|row| row.alignment).max().unwrap_or(1);
    Problem::with_alignment(buffers, alignment)
}

/// Writes a plan, one buffer per line under [`PLAN_HEADER`]. `size` is what the plan reserves (rounded up to the
/// alignment), so that peak, lower bound and naive total can be recomputed from the file alone; `alias_of` is the id
/// of the buffer whose storage is shared, or empty.
pub fn write_plan(problem: &Problem, plan: &Plan) -> String {
    let mut text = format!("{PLAN_HEADER}\n");
    for (buffer, offset) in problem.buffers().iter().zip(&plan.offsets) {
        let Buffer { id, lower, upper, .. } = buffer;
        let alias = buffer.alias_of.map_or("", |target| &problem.buffers()[target].id);
        // Writing to a String cannot fail.
        let _ =
            writeln!(text, "{},{lower},{upper},{},{offset},{}", quoted(id), problem.reserved(buffer), quoted(alias));
    }
    text
}

/// A name as a CSV field.
fn quoted(name: &str) -> String {
    if name.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", name.replace('"', "\"\"")) } else { name.to_owned() }
}

/// Which field of a line holds what.
struct Columns {
    count: usize,
    id: usize,
    lower: usize,
    upper: usize,
    size: usize,
    alignment: Option<usize>,
    gaps: Option<usize>,
    offset: Option<usize>,
    alias_of: Option<usize>,
}

struct Row {
    line: usize,
    buffer: Buffer,
    alignment: u64,
    offset: u64,
    alias_of: String,
}

const KNOWN: [&str; 8] = ["id", "lower", "upper", "size", "alignment", "gaps", "offset", "alias_of"];

impl Columns {
    fn parse(line: usize, header: &str) -> Result<Self, Fault> {
        let fault = |message: String| Fault::new("memory.F1", format!("line {line}: {message}"));
        let names: Vec<String> = split(header).map_err(|problem| fault(problem.into()))?;
        for (i, name) in names.iter().enumerate() {
            if !KNOWN.contains(&name.as_str()) {
                return Err(fault(format!("unknown column `{name}`; columns are {}", KNOWN.join(", "))));
            }
            if names[..i].contains(name) {
                return Err(fault(format!("column `{name}` is there twice; remove one")));
            }
        }
        let optional = |wanted: &str| names.iter().position(|name| name == wanted);
        let needed = |wanted: &str| {
            optional(wanted).ok_or_else(|| fault(format!("column `{wanted}` is missing; add it to the header")))
        };
        Ok(Self {
            count: names.len(),
            id: needed("id")?,
            lower: needed("lower")?,
            upper: needed("upper")?,
            size: needed("size")?,
            alignment: optional("alignment"),
            gaps: optional("gaps"),
            offset: optional("offset"),
            alias_of: optional("alias_of"),
        })
    }

    fn row(&self, line: usize, text: &str) -> Result<Row, Vec<Fault>> {
        let fields = split(text).map_err(|problem| vec![fault_at(line, "memory.F2", problem)])?;
        if fields.len() != self.count {
            let problem = format!("{} fields where the header names {}", fields.len(), self.count);
            return Err(vec![fault_at(line, "memory.F2", &problem)]);
        }
        let mut faults = Vec::new();
        let mut number = |column: usize, name: &str, largest: u64| {
            let field = &fields[column];
            field.parse::<u64>().ok().filter(|&n| n <= largest).unwrap_or_else(|| {
                let problem = format!("{name} `{field}` is no whole number from 0 to {largest}");
                faults.push(fault_at(line, "memory.F3", &problem));
                0
            })
        };
        let steps = [number(self.lower, "lower", u32::MAX.into()), number(self.upper, "upper", u32::MAX.into())];
        let size = number(self.size, "size", i64::MAX.cast_unsigned());
        let alignment = match self.alignment {
            Some(column) if !fields[column].is_empty() => number(column, "alignment", 1 << 30),
            _ => 1,
        };
        // Where an alias begins in what it shares is the difference of their offsets.
        let offset = match self.offset {
            Some(column) if self.alias_of.is_some() && !fields[column].is_empty() => {
                number(column, "offset", i64::MAX.cast_unsigned())
            }
            _ => 0,
        };
        if alignment > 1 && !alignment.is_power_of_two() {
            faults.push(fault_at(line, "memory.F6", &format!("alignment {alignment} is not a power of two")));
        }
        if self.gaps.is_some_and(|column| !fields[column].is_empty()) {
            let problem = "gaps in a live range are not supported; leave the field empty, or split the buffer in two";
            faults.push(fault_at(line, "memory.F6", problem));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        // The largest value was checked above: nothing is cut off.
        let [lower, upper] = steps.map(|step| u32::try_from(step).unwrap_or(u32::MAX));
        let alias_of = self.alias_of.map_or(String::new(), |column| fields[column].clone());
        let buffer = Buffer::new(fields[self.id].clone(), size, lower, upper);
        Ok(Row { line, buffer, alignment, offset, alias_of })
    }
}

fn fault_at(line: usize, label: &'static str, problem: &str) -> Fault {
    Fault::new(label, format!("line {line}: {problem}"))
}

/// Fields of a line, trimmed; a field in double quotes may hold commas, and doubled quotes for one.
fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut fields = Vec::new();
    let mut rest = line.trim();
    loop {
        let (field, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_field(quoted)?,
            None => {
                let end = rest.find(',').unwrap_or(rest.len());
                (rest[..end].trim().to_owned(), &rest[end..])
            }
        };
        fields.push(field);
        match after.trim_start().strip_prefix(',') {
            Some(next) => rest = next.trim_start(),
            None if after.trim().is_empty() => return Ok(fields),
            None => return Err("text after a closing quote; put a comma between fields"),
        }
    }
}

/// The field up to its closing quote, and what follows.
fn quoted_field(text: &str) -> Result<(String, &str), &'static str> {
    let mut field = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('"') {
        field.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        match rest.strip_prefix('"') {
            Some(next) => {
                field.push('"');
                rest = next;
            }
            None => return Ok((field, rest)),
        }
    }
    Err("a quote is opened and never closed; add the closing one")
}

/// Buffers with the ids of `alias_of` resolved to indices.
fn resolve_names(rows: &[Row], faults: &mut Vec<Fault>) -> Vec<Buffer> {
    let mut index: BTreeMap<&str, usize> = BTreeMap::new();
    for (i, row) in rows.iter().enumerate() {
        if let Some(&first) = index.get(row.buffer.id.as_str()) {
            let problem = format!("id `{}` was used on line {}; rename one", row.buffer.id, rows[first].line);
            faults.push(fault_at(row.line, "memory.F4", &problem));
        } else {
            index.insert(&row.buffer.id, i);
        }
    }
    let mut buffers = Vec::with_capacity(rows.len());
    for row in rows {
        let mut buffer = row.buffer.clone();
        if buffer.lower >= buffer.upper {
            let problem =
                format!("lower {} is not below upper {}; the live range is half-open", buffer.lower, buffer.upper);
            faults.push(fault_at(row.line, "memory.P1", &problem));
        }
        if !row.alias_of.is_empty() {
            buffer.alias_of = index.get(row.alias_of.as_str()).copied();
            let shared = buffer.alias_of.map(|target| row.offset.checked_sub(rows[target].offset));
            match shared {
                Some(Some(at)) => buffer.alias_at = at,
                Some(None) => {
                    let problem = format!("offset {} is below that of `{}`, its alias_of", row.offset, row.alias_of);
                    faults.push(fault_at(row.line, "memory.F5", &problem));
                }
                None => {
                    let problem = format!("alias_of `{}` is the id of no buffer in this file", row.alias_of);
                    faults.push(fault_at(row.line, "memory.F5", &problem));
                }
            }
        }
        buffers.push(buffer);
    }
    buffers
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::super::{Options, plan};
    use super::*;

    fn faults(text: &str) -> Vec<String> {
        read_problem(text).unwrap_err().iter().map(Fault::to_string).collect()
    }

    #[test]
    fn columns_in_any_order() {
        let problem = read_problem("size, upper,id,lower\r\n4,3,b1,0\r\n\r\n8,9,b2,3\r\n").unwrap();
        assert_eq!(problem.buffers(), [Buffer::new("b1", 4, 0, 3), Buffer::new("b2", 8, 3, 9)]);
        assert_eq!(problem.alignment(), 1);
    }

    #[test]
    fn alignment_is_the_largest_asked_for() {
        let problem = read_problem("id,lower,upper,size,alignment,gaps\na,0,1,4,32,\nb,0,1,4,,\n").unwrap();
        assert_eq!((problem.alignment(), problem.lower_bound()), (32, 64));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let buffers = vec![Buffer::new("a, \"b\"", 100, 0, 2), Buffer::new("view", 64, 1, 3).alias_of(0)];
        let problem = Problem::new(buffers).unwrap();
        let text = write_plan(&problem, &plan(&problem, &Options::default()));
        let expected = "id,lower,upper,size,offset,alias_of\n\
                        \"a, \"\"b\"\"\",0,2,128,0,\n\
                        view,1,3,64,0,\"a, \"\"b\"\"\"\n";
        assert_eq!(text, expected);
        let read = read_problem(&text).unwrap();
        assert_eq!(read.buffers()[1].alias_of, Some(0));
        assert_eq!((read.lower_bound(), read.naive_total()), (problem.lower_bound(), problem.naive_total()));
    }

    #[test]
    fn parts_are_read_back_by_their_offsets() {
        let buffers = vec![
            Buffer::new("other", 64, 0, 3),
            Buffer::new("whole", 128, 1, 3),
            Buffer::new("part", 64, 0, 2).part_of(1, 64),
        ];
        let problem = Problem::new(buffers).unwrap();
        let text = write_plan(&problem, &plan(&problem, &Options::default()));
        let read = read_problem(&text).unwrap();
        assert_eq!((read.buffers()[2].alias_of, read.buffers()[2].alias_at), (Some(1), 64));
        assert_eq!((read.lower_bound(), read.naive_total()), (192, 256));
        let spoilt = "id,lower,upper,size,offset,alias_of\na,0,1,4,8,\nb,0,1,4,0,a\n";
        assert_eq!(faults(spoilt), ["memory.F5: line 3: offset 0 is below that of `a`, its alias_of"]);
    }

    #[test]
    fn f1_header() {
        assert_eq!(faults(""), ["memory.F1: line 1: the file is empty; start it with `id,lower,upper,size`"]);
        assert_eq!(
            faults("id,start,upper,size\n"),
            [
                "memory.F1: line 1: unknown column `start`; columns are id, lower, upper, size, alignment, gaps, offset, alias_of"
            ]
        );
        assert_eq!(faults("id,lower,upper\n"), ["memory.F1: line 1: column `size` is missing; add it to the header"]);
        assert_eq!(faults("id,id,lower,upper,size\n"), ["memory.F1: line 1: column `id` is there twice; remove one"]);
    }

    #[test]
    fn every_line_is_reported() {
        let text = "id,lower,upper,size\na,0,1\nb,0,1,-4\nc,0,1.5,big\nd,3,3,4\nd,0,1,4\n\"e,0,1,4\n";
        assert_eq!(
            faults(text),
            [
                "memory.F2: line 2: 3 fields where the header names 4",
                "memory.F3: line 3: size `-4` is no whole number from 0 to 9223372036854775807",
                "memory.F3: line 4: upper `1.5` is no whole number from 0 to 4294967295",
                "memory.F3: line 4: size `big` is no whole number from 0 to 9223372036854775807",
                "memory.F2: line 7: a quote is opened and never closed; add the closing one",
                "memory.F4: line 6: id `d` was used on line 5; rename one",
                "memory.P1: line 5: lower 3 is not below upper 3; the live range is half-open",
            ]
        );
    }

    #[test]
    fn f5_and_f6() {
        assert_eq!(
            faults("id,lower,upper,size,alias_of\na,0,1,4,b\n"),
            ["memory.F5: line 2: alias_of `b` is the id of no buffer in this file"]
        );
        assert_eq!(
            faults("id,lower,upper,size,gaps,alignment\na,0,9,4,2-5,3\n"),
            [
                "memory.F6: line 2: alignment 3 is not a power of two",
                "memory.F6: line 2: gaps in a live range are not supported; leave the field empty, or split the buffer in two",
            ]
        );
    }
}
