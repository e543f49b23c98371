//! A table of measured choices, which the plan takes instead of its model's.
//!
//! What must stay true: a table is data that its caller holds; nothing here reads a file or the clock, and a
//! launch that no entry is about gets the model's choice.

use crate::format::{Bits, GROUP};
use crate::{Arithmetic, Error, Result};
use serde_json::{json, Value};
use std::ops::RangeInclusive;

/// What a launch is shaped by; where nothing is said, the model chooses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Choices {
    /// CTAs of a cluster that share K, 1 or 2. Two only where the device has clusters, ranks do not share it, and the kernel
    /// can. It decides over the order of additions, so over the last bits.
    pub k_splits: Option<usize>,
    /// Whether a launch of its own transforms the input, where the kernel can take it and its workspace holds it.
    /// It decides over no bits.
    pub transform: Option<bool>,
}

/// An entry of a [`Tuning`]: what launches it is about, and what they are shaped by.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TuningEntry {
    /// The device's name, as the driver says it.
    pub device: String,
    /// SMs that the rank has of it.
    pub sms: usize,
    /// Input channels of the rank.
    pub k: usize,
    /// Output channels of the rank's call; of all layers of a column-parallel one together.
    pub n: usize,
    /// Bits per weight of all of the call's layers.
    pub bits: Bits,
    /// Rows of the call.
    pub rows: RangeInclusive<usize>,
    /// What is chosen.
    pub choices: Choices,
}

/// Measured choices for [`Group::tuning`](crate::Group::tuning), as `trellink tune` writes them.
///
/// Without a table, and for calls that no entry is about, a model of the machine chooses; a table changes only speed and, where it
/// says whether K is shared, the order of additions. Ranks may have different tables: each rank's partial sums are its
/// own, and all ranks add the same ones, so they agree in any case. With [`Arithmetic::Uniform`] `k_splits` is left to the
/// model, since a row's bits must not depend on the range of rows that a call falls into.
///
/// ```
/// use trellink::{Group, Tuning};
///
/// let tuning = Tuning::from_json(
///     r#"[{"device": "NVIDIA H100 80GB HBM3", "sms": 132, "k": 7168, "n": 4096, "bits": 4.0,
///          "rows": [9, 16], "k_splits": 2, "transform": false}]"#,
/// )?;
/// assert_eq!(tuning.entries().len(), 1);
/// let group = Group::on_host(2).tuning(tuning);
/// # Ok::<(), trellink::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Tuning {
    entries: Vec<TuningEntry>,
}

/// A call, as far as a table tells calls apart.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// Input channels of the rank.
    pub k: usize,
    /// Output channels of all layers together.
    pub n: usize,
    /// Twice the bits per weight of every layer.
    pub half_bits: &'a [usize],
    /// Of the whole call.
    pub rows: usize,
    /// Of the layers.
    pub arithmetic: Arithmetic,
}

impl TuningEntry {
    fn is_about(&self, call: &Call<'_>) -> bool {
        let bits = self.bits.half_bits();
        (self.k, self.n) == (call.k, call.n)
            && self.rows.contains(&call.rows)
            && call.half_bits.iter().all(|&found| found == bits)
    }

    /// Whether a call could fall under both.
    fn overlaps(&self, other: &TuningEntry) -> bool {
        let place = |e: &TuningEntry| (e.device.clone(), e.sms, e.k, e.n, e.bits);
        place(self) == place(other)
            && self.rows.start() <= other.rows.end()
            && other.rows.start() <= self.rows.end()
    }

    fn check(&self, at: usize) -> Result<()> {
        let channels = |c: usize| c > 0 && c.is_multiple_of(GROUP);
        if !channels(self.k) || !channels(self.n) {
            let found = format!("{} x {} channels", self.k, self.n);
            return Err(wrong(at, found, "positive multiples of 128"));
        }
        if self.sms == 0 {
            return Err(wrong(at, "0 SMs", "at least 1"));
        }
        if self.rows.is_empty() || *self.rows.start() == 0 {
            let found = format!("rows {} to {}", self.rows.start(), self.rows.end());
            return Err(wrong(at, found, "a range from 1 on that is not empty"));
        }
        match self.choices {
            Choices {
                k_splits: None,
                transform: None,
            } => Err(wrong(at, "no choice", "`k_splits` or `transform`")),
            Choices {
                k_splits: Some(splits),
                ..
            } if !(1..=2).contains(&splits) => {
                Err(wrong(at, format!("{splits} k_splits"), "1 or 2"))
            }
            _ => Ok(()),
        }
    }
}

impl Tuning {
    /// A table of these entries.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] names the first entry that says what cannot be, or what another one says
    /// about the same calls.
    pub fn new(entries: Vec<TuningEntry>) -> Result<Self> {
        for (at, entry) in entries.iter().enumerate() {
            entry.check(at)?;
            if let Some(other) = entries[..at].iter().position(|other| other.overlaps(entry)) {
                let found = format!("the rows of entry {other}");
                return Err(wrong(at, found, "rows that no other entry is about"));
            }
        }
        Ok(Tuning { entries })
    }

    /// The entries, in order.
    pub fn entries(&self) -> &[TuningEntry] {
        &self.entries
    }

    /// The table as JSON: an array of objects with `device`, `sms`, `k`, `n`, `bits`, `rows` (first and last) and, where
    /// chosen, `k_splits` and `transform`.
    pub fn to_json(&self) -> String {
        let entry = |entry: &TuningEntry| {
            let mut object = json!({
                "device": entry.device,
                "sms": entry.sms,
                "k": entry.k,
                "n": entry.n,
                "bits": entry.bits.half_bits() as f64 / 2.0,
                "rows": [entry.rows.start(), entry.rows.end()],
            });
            if let Some(splits) = entry.choices.k_splits {
                object["k_splits"] = json!(splits);
            }
            if let Some(transform) = entry.choices.transform {
                object["transform"] = json!(transform);
            }
            object
        };
        let entries = Value::Array(self.entries.iter().map(entry).collect());
        format!("{entries:#}\n")
    }

    /// What [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for what is no such table: no JSON, an entry without a field or with one that is not
    /// known, or what [`new`](Self::new) refuses.
    pub fn from_json(text: &str) -> Result<Self> {
        let array = "a JSON array of objects, as `trellink tune` writes it";
        let parsed: Value = serde_json::from_str(text)
            .map_err(|error| Error::argument("tuning", error.to_string(), array))?;
        let Value::Array(values) = parsed else {
            return Err(Error::argument("tuning", "no array", array));
        };
        let entries = values.iter().enumerate();
        let entries = entries.map(|(at, value)| Fields { at, value }.entry());
        Self::new(entries.collect::<Result<_>>()?)
    }

    /// The entries for a rank that has `sms` SMs of this device.
    pub fn for_device(&self, device: &str, sms: usize) -> Self {
        let is_for = |entry: &&TuningEntry| entry.device == device && entry.sms == sms;
        Tuning {
            entries: self.entries.iter().filter(is_for).cloned().collect(),
        }
    }

    /// What a call on the device of all entries is shaped by.
    pub fn choices(&self, call: &Call<'_>) -> Choices {
        let found = self.entries.iter().find(|entry| entry.is_about(call));
        let mut choices = found.map_or(Choices::default(), |entry| entry.choices);
        if call.arithmetic == Arithmetic::Uniform {
            choices.k_splits = None;
        }
        choices
    }
}

fn wrong(at: usize, found: impl std::fmt::Display, expected: &str) -> Error {
    Error::argument("tuning", format!("entry {at}: {found}"), expected)
}

/// An entry as it is read.
struct Fields<'a> {
    at: usize,
    value: &'a Value,
}

impl Fields<'_> {
    const KNOWN: [&'static str; 8] = [
        "device",
        "sms",
        "k",
        "n",
        "bits",
        "rows",
        "k_splits",
        "transform",
    ];

    fn entry(&self) -> Result<TuningEntry> {
        let Value::Object(fields) = self.value else {
            return Err(wrong(self.at, self.value, "an object"));
        };
        let unknown = |name: &&String| !Self::KNOWN.contains(&name.as_str());
        if let Some(name) = fields.keys().find(unknown) {
            let expected = format!("some of {}", Self::KNOWN.join(", "));
            return Err(wrong(self.at, format!("field `{name}`"), &expected));
        }
        Ok(TuningEntry {
            device: self.field("device", "a name", |v| v.as_str().map(Into::into))?,
            sms: self.number("sms")?,
            k: self.number("k")?,
            n: self.number("n")?,
            bits: self.field("bits", "a bitrate of the format", bits)?,
            rows: self.field("rows", "two whole numbers", rows)?,
            choices: Choices {
                k_splits: self.present("k_splits", |f| f.number("k_splits"))?,
                transform: self.present("transform", |f| {
                    f.field("transform", "true or false", Value::as_bool)
                })?,
            },
        })
    }

    fn present<T>(&self, name: &str, read: impl Fn(&Self) -> Result<T>) -> Result<Option<T>> {
        self.value.get(name).map(|_| read(self)).transpose()
    }

    fn number(&self, name: &str) -> Result<usize> {
        self.field(name, "a whole number", whole)
    }

    fn field<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let value = self.value.get(name).unwrap_or(&Value::Null);
        let found = || wrong(self.at, format!("`{name}` {value}"), expected);
        read(value).ok_or_else(found)
    }
}

fn whole(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| number.try_into().ok())
}

fn bits(value: &Value) -> Option<Bits> {
    let half_bits = value.as_f64()? * 2.0;
    let is_whole = half_bits.fract() == 0.0 && (0.0..100.0).contains(&half_bits);
    Bits::from_half_bits(is_whole.then_some(half_bits as usize)?)
}

fn rows(value: &Value) -> Option<RangeInclusive<usize>> {
    match value.as_array()?.as_slice() {
        [first, last] => Some(whole(first)?..=whole(last)?),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(rows: RangeInclusive<usize>, k_splits: Option<usize>) -> TuningEntry {
        TuningEntry {
            device: "a \"device\"".into(),
            sms: 132,
            k: 7168,
            n: 4096,
            bits: "1.5".parse().unwrap(),
            rows,
            choices: Choices {
                k_splits,
                transform: Some(false),
            },
        }
    }

    fn call(rows: usize) -> Call<'static> {
        Call {
            k: 7168,
            n: 4096,
            half_bits: &[3],
            rows,
            arithmetic: Arithmetic::Fastest,
        }
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let entries = vec![entry(1..=8, Some(1)), entry(9..=9, None)];
        let tuning = Tuning::new(entries).unwrap();
        assert_eq!(Tuning::from_json(&tuning.to_json()).unwrap(), tuning);
        assert_eq!(Tuning::from_json("[]").unwrap(), Tuning::default());
    }

    #[test]
    fn a_call_gets_the_choices_of_the_entry_that_is_about_it() {
        let tuning = Tuning::new(vec![entry(1..=8, Some(1)), entry(9..=16, Some(2))]).unwrap();
        let splits = |call| tuning.choices(&call).k_splits;
        assert_eq!(
            [8, 9, 16, 17].map(|rows| splits(call(rows))),
            [Some(1), Some(2), Some(2), None]
        );
        assert_eq!(tuning.choices(&call(17)), Choices::default());
        let other = |change: fn(&mut Call<'_>)| {
            let mut call = call(8);
            change(&mut call);
            splits(call)
        };
        assert_eq!(other(|call| call.k = 128), None);
        assert_eq!(other(|call| call.n = 128), None);
        assert_eq!(other(|call| call.half_bits = &[3, 4]), None);
        assert_eq!(other(|call| call.half_bits = &[3, 3]), Some(1));
    }

    #[test]
    fn bits_that_must_not_depend_on_rows_do_not() {
        let tuning = Tuning::new(vec![entry(9..=16, Some(2))]).unwrap();
        let choices = tuning.choices(&Call {
            arithmetic: Arithmetic::Uniform,
            ..call(9)
        });
        assert_eq!((choices.k_splits, choices.transform), (None, Some(false)));
    }

    #[test]
    fn a_rank_gets_the_entries_of_its_device_and_share() {
        let other = TuningEntry {
            sms: 66,
            ..entry(1..=8, None)
        };
        let tuning = Tuning::new(vec![entry(1..=8, Some(1)), other.clone()]).unwrap();
        assert_eq!(tuning.for_device("a \"device\"", 66).entries(), [other]);
        assert!(tuning.for_device("another", 66).entries().is_empty());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |text: &str| match Tuning::from_json(text) {
            Err(Error::InvalidArgument {
                argument: "tuning",
                found,
                ..
            }) => found,
            other => panic!("{text}: {other:?}"),
        };
        let table = Tuning::new(vec![entry(1..=8, Some(1))]).unwrap();
        let text = table.to_json();
        for (before, after, part) in [
            ("\"sms\": 132", "\"sms\": 0", "0 SMs"),
            ("\"k\": 7168", "\"k\": 7000", "7000 x 4096"),
            ("\"k\": 7168", "\"k\": -1", "`k` -1"),
            ("\"bits\": 1.5", "\"bits\": 4.5", "`bits` 4.5"),
            ("\"k_splits\": 1", "\"k_splits\": 3", "3 k_splits"),
            ("\"k_splits\": 1", "\"splits\": 1", "`splits`"),
            ("\"transform\": false", "\"transform\": 0", "`transform` 0"),
            ("\"rows\"", "\"row\"", "`row`"),
            ("\"sms\": 132,", "", "`sms` null"),
        ] {
            assert!(text.contains(before), "{text}");
            let found = refused(&text.replace(before, after));
            assert!(found.contains(part), "{found}");
        }
        for text in ["", "{}", "[1]", "[{}]", "[[]]", "null", "[{\"rows\": [1]}]"] {
            refused(text);
        }
        let empty = Tuning::new(vec![entry(RangeInclusive::new(8, 1), Some(1))]).unwrap_err();
        assert!(empty.to_string().contains("rows 8 to 1"), "{empty}");
        let twice = Tuning::new(vec![entry(1..=8, Some(1)), entry(8..=9, Some(2))]).unwrap_err();
        assert!(
            twice.to_string().contains("entry 1: the rows of entry 0"),
            "{twice}"
        );
        let none = TuningEntry {
            choices: Choices::default(),
            ..entry(1..=8, None)
        };
        assert!(Tuning::new(vec![none]).is_err());
    }
}
