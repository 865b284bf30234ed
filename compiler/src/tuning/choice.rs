//! A choice as data and as text.

use std::fmt;
use std::str::FromStr;

use kiln_rt::kernels::{ContractChoice, Packed, WinogradChoice, WinogradTile};

/// How one kernel is computed. As text, `direct rows=left columns=32 tiles=4x2x1 k=384 ahead=right fork=no`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Choice {
    /// Algorithm and blocks.
    pub way: Way,
    /// Whether its launches are shared among threads; `None` leaves that to the session.
    pub forks: Option<bool>,
}

/// Algorithm and blocks of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// Sums of products.
    Direct(ContractChoice),
    /// Minimal filtering.
    Winograd(WinogradChoice),
    /// Minimal filtering of a gradient by the weights.
    WinogradGradient(WinogradTile),
    /// A kernel over windows of planes, in so many tiles.
    Window(u64),
}

impl From<Way> for Choice {
    fn from(way: Way) -> Choice {
        Choice { way, forks: None }
    }
}

fn size(tile: WinogradTile) -> usize {
    match tile {
        WinogradTile::Two => 2,
        WinogradTile::Four => 4,
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.way {
            Way::Direct(ContractChoice { swapped, columns, inner, tiles: [m, n, k], k_block, ahead }) => {
                let rows = if swapped { "right" } else { "left" };
                let ahead = match (ahead.left, ahead.right) {
                    (false, false) => "none",
                    (true, false) => "left",
                    (false, true) => "right",
                    (true, true) => "both",
                };
                write!(f, "direct rows={rows} columns={columns} tiles={m}x{n}x{k} k={k_block} ahead={ahead}")?;
                f.write_str(if inner { " inner=yes" } else { "" })?;
            }
            Way::Winograd(WinogradChoice { tile, groups, parts }) => {
                write!(f, "winograd tile={} groups={groups} parts={parts}", size(tile))?;
            }
            Way::WinogradGradient(tile) => write!(f, "winograd-gradient tile={}", size(tile))?,
            Way::Window(tiles) => write!(f, "window tiles={tiles}")?,
        }
        match self.forks {
            None => Ok(()),
            Some(true) => f.write_str(" fork=yes"),
            Some(false) => f.write_str(" fork=no"),
        }
    }
}

/// A text that is no choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a choice")]
pub struct NoChoice;

/// `name=value` words.
struct Fields<'a>(Vec<(&'a str, &'a str)>);

impl<'a> Fields<'a> {
    fn text(&self, name: &str) -> Result<&'a str, NoChoice> {
        self.0.iter().find(|field| field.0 == name).map(|field| field.1).ok_or(NoChoice)
    }

    fn number<N: FromStr>(&self, name: &str) -> Result<N, NoChoice> {
        self.text(name)?.parse().map_err(|_| NoChoice)
    }

    /// What may be left out.
    fn flag(&self, name: &str) -> Result<Option<bool>, NoChoice> {
        match self.text(name) {
            Err(NoChoice) => Ok(None),
            Ok("yes") => Ok(Some(true)),
            Ok("no") => Ok(Some(false)),
            Ok(_) => Err(NoChoice),
        }
    }

    fn tile(&self) -> Result<WinogradTile, NoChoice> {
        match self.text("tile")? {
            "2" => Ok(WinogradTile::Two),
            "4" => Ok(WinogradTile::Four),
            _ => Err(NoChoice),
        }
    }

    fn direct(&self) -> Result<ContractChoice, NoChoice> {
        let tiles: Vec<usize> =
            self.text("tiles")?.split('x').map(str::parse).collect::<Result<_, _>>().map_err(|_| NoChoice)?;
        let (left, right) = match self.text("ahead")? {
            "none" => (false, false),
            "left" => (true, false),
            "right" => (false, true),
            "both" => (true, true),
            _ => return Err(NoChoice),
        };
        Ok(ContractChoice {
            swapped: match self.text("rows")? {
                "left" => false,
                "right" => true,
                _ => return Err(NoChoice),
            },
            columns: self.number("columns")?,
            inner: self.flag("inner")?.unwrap_or(false),
            tiles: tiles.try_into().map_err(|_| NoChoice)?,
            k_block: self.number("k")?,
            ahead: Packed { left, right },
        })
    }
}

impl FromStr for Choice {
    type Err = NoChoice;

    fn from_str(text: &str) -> Result<Choice, NoChoice> {
        let mut words = text.split_whitespace();
        let way = words.next().ok_or(NoChoice)?;
        let fields = Fields(words.map(|word| word.split_once('=').ok_or(NoChoice)).collect::<Result<_, _>>()?);
        let way = match way {
            "direct" => Way::Direct(fields.direct()?),
            "winograd" => {
                let (groups, parts) = (fields.number("groups")?, fields.number("parts")?);
                Way::Winograd(WinogradChoice { tile: fields.tile()?, groups, parts })
            }
            "winograd-gradient" => Way::WinogradGradient(fields.tile()?),
            "window" => Way::Window(fields.number("tiles")?),
            _ => return Err(NoChoice),
        };
        Ok(Choice { way, forks: fields.flag("fork")? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_they_are_written() {
        let texts = [
            "direct rows=left columns=32 tiles=4x2x1 k=384 ahead=none",
            "direct rows=right columns=16 tiles=1x1x8 k=192 ahead=both fork=no",
            "direct rows=left columns=16 tiles=1x4x1 k=2048 ahead=none inner=yes",
            "winograd tile=4 groups=3 parts=2 fork=yes",
            "winograd-gradient tile=2",
            "window tiles=12 fork=no",
        ];
        for text in texts {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
        let Way::Direct(choice) = texts[1].parse::<Choice>().unwrap().way else { panic!("another way") };
        assert!(choice.swapped && choice.tiles == [1, 1, 8] && choice.ahead.left && choice.ahead.right);
    }

    #[test]
    fn other_texts_are_no_choices() {
        let texts = [
            "",
            "direct",
            "direct rows=up columns=32 tiles=4x2x1 k=384 ahead=none",
            "direct rows=left columns=32 tiles=4x2 k=384 ahead=none",
            "direct rows=left columns=16 tiles=4x2x1 k=384 ahead=none inner=maybe",
            "direct rows=left columns=-1 tiles=4x2x1 k=384 ahead=none",
            "winograd tile=3 groups=1 parts=1",
            "window tiles=1 fork=maybe",
            "window tiles",
            "window tiles=99999999999999999999999",
        ];
        for text in texts {
            assert_eq!(text.parse::<Choice>(), Err(NoChoice), "{text}");
        }
    }
}
