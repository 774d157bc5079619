//! One case, as it is written in the file.

use std::collections::BTreeMap;

use dwf::{
    SampleOptions, Status,
    layout::DType,
    ode::{Grid, Method, Solver},
};
use half::{bf16, f16};
use serde::Deserialize;
use serde_json::Value;

use super::{Outcome, folder};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub name: String,
    artifact: String,
    pub op: Op,
    #[serde(default)]
    pub options: Options,
    #[serde(default)]
    pub buffer: Buffer,
    pub cancel_at: Option<u64>,
    /// A language whose types cannot say this leaves the case out.
    #[serde(default)]
    pub untyped: bool,
    pub expect: Expect,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Op {
    Open,
    Info,
    Tensors,
    Sample,
    Cancel,
    Busy,
}

/// Fields of `dwf_sample_options`, where zero means default.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Options {
    pub seed: u64,
    pub first_index: u64,
    pub count: usize,
    pub solver: u32,
    pub grid: u32,
    pub steps: u64,
    pub tolerance: f64,
    pub condition: Option<Vec<f32>>,
    pub condition_rows: usize,
    pub guidance: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Buffer {
    pub dtype: DType,
    pub row_stride: Option<usize>,
    pub size_bytes: Option<usize>,
    pub scatter: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    pub status: String,
    #[serde(default)]
    error_contains: String,
    #[serde(default)]
    values: BTreeMap<String, f64>,
    tolerance: Option<f64>,
    calls: Option<u64>,
    total: Option<u64>,
    nested_status: Option<String>,
    info: Option<Value>,
    tensors: Option<Value>,
}

impl Options {
    pub fn count(&self) -> usize {
        self.count.max(1)
    }

    /// The options in Rust's types; `None` if they cannot say them.
    pub fn typed(&self, default: Solver) -> Option<SampleOptions<'_>> {
        Some(SampleOptions {
            seed: self.seed,
            first_index: self.first_index,
            count: self.count(),
            solver: Some(self.solver(default)?),
            condition: self.condition.as_deref(),
            guidance: if self.guidance == 0.0 {
                1.0
            } else {
                self.guidance
            },
            progress: None,
        })
    }

    fn solver(&self, default: Solver) -> Option<Solver> {
        Some(Solver {
            method: match self.solver {
                0 => default.method,
                code => Method::from_code(code)?,
            },
            grid: match self.grid {
                0 => default.grid,
                code => Grid::from_code(code)?,
            },
            steps: match self.steps {
                0 => default.steps,
                steps => steps as usize,
            },
            tolerance: if self.tolerance == 0.0 {
                default.tolerance
            } else {
                self.tolerance
            },
        })
    }
}

impl Case {
    /// All cases of the file.
    pub fn all() -> Vec<Self> {
        #[derive(Deserialize)]
        struct File {
            cases: Vec<Case>,
        }
        let text = std::fs::read(folder().join("cases.json")).unwrap();
        serde_json::from_slice::<File>(&text).unwrap().cases
    }

    pub fn path(&self) -> std::path::PathBuf {
        folder().join(&self.artifact)
    }

    /// Whether it must leave networks behind.
    pub fn generates(&self) -> bool {
        self.op == Op::Sample && self.expect.status == "DWF_OK"
    }

    /// The expected weights: row, column, value.
    pub fn values(&self) -> impl Iterator<Item = (usize, usize, f64)> {
        self.expect.values.iter().map(|(place, value)| {
            let (row, column) = place.split_once(',').expect(place);
            (row.parse().unwrap(), column.parse().unwrap(), *value)
        })
    }

    /// Whether a weight is what is expected.
    pub fn is_close(&self, found: f64, expected: f64) -> bool {
        let tolerance = self.expect.tolerance.unwrap_or(1e-4);
        (found - expected).abs() <= tolerance * expected.abs().max(1.0)
    }

    /// Checks what came of it.
    pub fn check(&self, outcome: &Outcome) {
        let (name, expect) = (&self.name, &self.expect);
        let error = &outcome.error;
        assert_eq!(outcome.status, expect.status, "{name}: {error}");
        assert!(error.contains(&expect.error_contains), "{name}: {error}");
        let told = [(expect.calls, outcome.calls), (expect.total, outcome.total)];
        for (expected, found) in told {
            assert_eq!(expected.unwrap_or(found), found, "{name}: calls and total");
        }
        assert_eq!(outcome.nested_status, expect.nested_status, "{name}");
        assert_eq!(outcome.info, expect.info, "{name}");
        assert_eq!(outcome.tensors, expect.tensors, "{name}");
        self.check_memory(outcome);
    }

    fn check_memory(&self, outcome: &Outcome) {
        let Some(memory) = &outcome.memory else {
            return assert_eq!(self.values().count(), 0, "{}: no memory", self.name);
        };
        if self.op == Op::Sample {
            let refused = self.expect.status != "DWF_OK";
            assert_eq!(memory.is_untouched(), refused, "{}", self.name);
        }
        let bytes = memory.bytes();
        let weights = dwf::Model::open(self.path(), &Default::default())
            .unwrap()
            .metadata()
            .layout
            .len();
        let stride = self.buffer.row_stride.unwrap_or(weights);
        for (row, column, expected) in self.values() {
            let size = self.buffer.dtype.size();
            let at = (row * stride + column) * size;
            let found = self.decode(&bytes[at..at + size]);
            assert!(
                self.is_close(found, expected),
                "{}: {found} instead of {expected} at {row},{column}",
                self.name
            );
        }
    }

    fn decode(&self, bytes: &[u8]) -> f64 {
        match self.buffer.dtype {
            DType::F32 => f32::from_ne_bytes(bytes.try_into().unwrap()).into(),
            DType::F16 => f16::from_ne_bytes(bytes.try_into().unwrap()).into(),
            DType::Bf16 => bf16::from_ne_bytes(bytes.try_into().unwrap()).into(),
        }
    }
}

/// A status as the file writes it.
pub fn name_of(status: Status) -> String {
    status.name().to_str().unwrap().to_owned()
}
