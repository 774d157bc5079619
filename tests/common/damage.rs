//! Every way in which an artifact's contents can be wrong, and what opening it must then say.

use dwf::{
    Status,
    condition::{Axis, Condition, ConditionSchema},
    metadata::BasisKind,
    onnx::{
        AttributeProto, GraphProto, LOCATION_EXTERNAL, NodeProto, OperatorSetIdProto,
        StringStringEntryProto, TensorProto, ValueInfoProto, attribute_type, data_type,
    },
};
use serde_json::json;

use super::{Artifact, Fixture, artifact::sha256};

/// One kind of damage.
pub struct Damage {
    pub what: String,
    pub artifact: Artifact,
    pub status: Status,
    /// What the error text must name: the file and the field.
    pub texts: Vec<&'static str>,
}

const ONNX: &str = "net.onnx";
const SIDECAR: &str = "net.safetensors";

/// The required metadata keys.
pub const KEYS: [&str; 9] = [
    "dwf.format",
    "dwf.layout",
    "dwf.basis",
    "dwf.source",
    "dwf.solver",
    "dwf.sidecar.sha256",
    "dwf.pair",
    "dwf.provenance",
    "dwf.quality",
];

/// All of them.
pub fn all() -> Vec<Damage> {
    every(1)
}

/// Every `step`th, where making them all takes too long.
pub fn every(step: usize) -> Vec<Damage> {
    let mut damages = Damages {
        made: Vec::new(),
        kinds: 0,
        step,
    };
    damages.metadata();
    damages.layout();
    damages.condition();
    damages.signature();
    damages.external();
    damages.graph();
    damages.sidecar();
    damages.basis();
    damages.made
}

struct Damages {
    made: Vec<Damage>,
    kinds: usize,
    step: usize,
}

impl Damages {
    /// Damage that is BAD_ARTIFACT and named by `texts`.
    fn bad(&mut self, what: &str, texts: &[&'static str], damage: impl Fn(&mut Artifact)) {
        self.add(Fixture::default(), what, Status::BadArtifact, texts, damage);
    }

    /// What this libdwf leaves to later ones.
    fn unsupported(&mut self, what: &str, texts: &[&'static str], damage: impl Fn(&mut Artifact)) {
        let texts = [&[ONNX], texts].concat();
        self.add(
            Fixture::default(),
            what,
            Status::Unsupported,
            &texts,
            damage,
        );
    }

    fn add(
        &mut self,
        fixture: Fixture,
        what: &str,
        status: Status,
        texts: &[&'static str],
        damage: impl Fn(&mut Artifact),
    ) {
        self.kinds += 1;
        if !self.kinds.is_multiple_of(self.step) {
            return;
        }
        let mut artifact = fixture.build();
        damage(&mut artifact);
        self.made.push(Damage {
            what: what.to_owned(),
            artifact,
            status,
            texts: texts.to_vec(),
        });
    }

    fn metadata(&mut self) {
        for key in KEYS {
            self.bad(&format!("no {key}"), &[ONNX, key, "missing"], |a| {
                a.remove_prop(key)
            });
        }
        for key in KEYS.into_iter().filter(|key| *key != "dwf.pair") {
            for text in ["", "{", "\u{1F600}"] {
                self.bad(&format!("{key} is '{text}'"), &[ONNX, key], |a| {
                    a.set_prop(key, text)
                });
            }
        }
        for version in ["0", "-1", "1.0", "99999999999"] {
            self.bad(
                &format!("format {version}"),
                &[ONNX, "dwf.format", version],
                |a| a.set_prop("dwf.format", version),
            );
        }
        self.add(
            Fixture::default(),
            "a newer format",
            Status::Unsupported,
            &[ONNX, "version 3", "update"],
            |a| a.set_prop("dwf.format", "3"),
        );
        self.add(
            Fixture::default().with_logs(),
            "what the format does not have yet",
            Status::BadArtifact,
            &[ONNX, "dwf.format is 1", "transforms"],
            |a| a.set_prop("dwf.format", "1"),
        );
        let upper = |a: &mut Artifact| {
            let upper = a.prop("dwf.sidecar.sha256").to_uppercase();
            a.set_prop("dwf.sidecar.sha256", &upper);
        };
        self.bad("SHA-256 in capitals", &[ONNX, "dwf.sidecar.sha256"], upper);
        let mut set = |key, pointer, value: serde_json::Value| {
            self.bad(&format!("{key}{pointer} is {value}"), &[ONNX, key], |a| {
                a.set_in_prop(key, pointer, value.clone())
            });
        };
        set("dwf.basis", "", json!("cubic"));
        set("dwf.source", "/std", json!(0.0));
        set("dwf.source", "/std", json!(-1.0));
        set("dwf.source", "/std", json!(null));
        set("dwf.source", "/distribution", json!("cauchy"));
        set("dwf.solver", "/steps", json!(0));
        set("dwf.solver", "/steps", json!(100_001));
        set("dwf.solver", "/steps", json!(-1));
        set("dwf.solver", "/method", json!("rk5"));
        set("dwf.solver", "/grid", json!("log"));
        set("dwf.quality", "", json!({ "accuracy": "good" }));
        set("dwf.provenance", "", json!(["nobody"]));
    }

    fn layout(&mut self) {
        let mut set = |pointer, value: serde_json::Value, text| {
            self.bad(
                &format!("layout {pointer} is {value}"),
                &[ONNX, "dwf.layout", text],
                |a| a.set_in_prop("dwf.layout", pointer, value.clone()),
            );
        };
        set("", json!([]), "no tensors");
        set("/1/offset", json!(65), "fc1.bias");
        set("/1/offset", json!(63), "fc1.bias");
        set("/0/offset", json!(1), "fc1.weight");
        set("/0/offset", json!(-1), "expected usize");
        set("/1/name", json!("fc1.weight"), "fc1.weight");
        set("/1/name", json!(""), "empty name");
        set("/1/name", json!("fc1\0bias"), "NUL");
        set("/0/shape", json!([0]), "fc1.weight");
        set(
            "/0/shape",
            json!([1, 1, 1, 1, 1, 1, 1, 1, 64]),
            "dimensions",
        );
        set("/0/shape", json!([1u64 << 32, 1u64 << 32]), "too large");
        set("/0/shape", json!([1u64 << 61]), "too large");
        set("/0/shape", json!([-16, 4]), "expected usize");
        set("/0/dtype", json!("f8"), "f8");
        set("/0/kind", json!("opinion"), "opinion");
    }

    fn condition(&mut self) {
        let axis = |min, max| Axis {
            name: "speed".into(),
            min,
            max,
        };
        let mut set = |what: &str, condition: Condition, text| {
            let fixture = Fixture {
                condition: Some(condition),
                ..Default::default()
            };
            let texts = [ONNX, "dwf.condition", text];
            self.add(fixture, what, Status::BadArtifact, &texts, |_| {});
        };
        let plain = |schema| Condition {
            schema,
            unconditional: None,
        };
        set(
            "no classes",
            plain(ConditionSchema::Classes(Vec::new())),
            "no classes",
        );
        set(
            "an axis without range",
            plain(ConditionSchema::Axes(vec![axis(1.0, 0.0)])),
            "speed",
        );
        set(
            "an unconditional row of another length",
            Condition {
                schema: ConditionSchema::Axes(vec![axis(0.0, 1.0)]),
                unconditional: Some(vec![0.0; 2]),
            },
            "unconditional",
        );
        self.bad(
            "a condition that is no schema",
            &[ONNX, "dwf.condition"],
            |a| a.set_prop("dwf.condition", "{\"colours\":3}"),
        );
        self.bad(
            "a condition that the graph lacks",
            &[ONNX, "condition"],
            |a| a.set_prop("dwf.condition", "{\"classes\":[\"setosa\"]}"),
        );
        let classes = Condition {
            schema: ConditionSchema::Classes(vec!["setosa".into(), "virginica".into()]),
            unconditional: None,
        };
        let fixture = Fixture {
            condition: Some(classes),
            ..Default::default()
        };
        self.add(
            fixture.clone(),
            "a condition of another size than the graph's",
            Status::BadArtifact,
            &[ONNX, "condition", "2", "1"],
            |a| a.set_prop("dwf.condition", "{\"classes\":[\"setosa\"]}"),
        );
        self.add(
            fixture,
            "a condition that only the graph has",
            Status::BadArtifact,
            &[ONNX, "inputs"],
            |a| a.remove_prop("dwf.condition"),
        );
    }

    fn signature(&mut self) {
        let value = |name, element, columns| {
            ValueInfoProto::tensor(name, element, &[Err("batch"), Ok(columns)])
        };
        self.bad("no graph", &[ONNX, "graph"], |a| a.onnx.graph = None);
        self.bad("no input x", &[ONNX, "'x'"], |a| {
            a.graph().input[0].name = Some("y".into());
        });
        self.bad("input x of float16", &[ONNX, "'x'", "float32"], |a| {
            a.graph().input[0] = value("x", data_type::FLOAT16, 12);
        });
        self.bad("input x of rank 3", &[ONNX, "'x'"], |a| {
            let shape = [Err("batch"), Ok(12), Ok(1)];
            a.graph().input[0] = ValueInfoProto::tensor("x", data_type::FLOAT, &shape);
        });
        self.bad("input x of unknown width", &[ONNX, "'x'"], |a| {
            let shape = [Err("batch"), Err("latent")];
            a.graph().input[0] = ValueInfoProto::tensor("x", data_type::FLOAT, &shape);
        });
        self.bad("input t two columns wide", &[ONNX, "'t'"], |a| {
            a.graph().input[1] = value("t", data_type::FLOAT, 2);
        });
        self.bad("output v of another width", &[ONNX, "'v'", "12"], |a| {
            a.graph().output[0] = value("v", data_type::FLOAT, 13);
        });
        self.bad("no output", &[ONNX, "'v'"], |a| a.graph().output.clear());
        self.bad("an input too many", &[ONNX, "3 inputs"], |a| {
            a.graph().input.push(value("y", data_type::FLOAT, 1));
        });
        self.bad("an output too many", &[ONNX, "2 outputs"], |a| {
            a.graph().output.push(value("w", data_type::FLOAT, 1));
        });
        self.add(
            Fixture::with_basis(BasisKind::Identity),
            "a latent that is not the layout's",
            Status::BadArtifact,
            &[ONNX, "148", "147"],
            |a| {
                let mut layout: Vec<serde_json::Value> =
                    serde_json::from_str(a.prop("dwf.layout")).unwrap();
                layout.pop();
                a.set_prop("dwf.layout", &json!(layout).to_string());
            },
        );
    }

    fn external(&mut self) {
        for location in [
            "/etc/passwd",
            "../net.safetensors",
            "..",
            ".",
            "",
            "sub/net.safetensors",
            "sub\\net.safetensors",
            "C:net.safetensors",
            "net\0.safetensors",
        ] {
            self.bad(
                &format!("external location '{}'", location.escape_default()),
                &[ONNX, "input.weight", "location"],
                |a| a.set_external("location", location),
            );
        }
        self.bad("a second sidecar", &[ONNX, "second sidecar"], |a| {
            let entries = &mut a.graph().initializer.last_mut().unwrap().external_data;
            entries.retain(|entry| entry.key() != "location");
            entries.push(StringStringEntryProto::new("location", "b.safetensors"));
        });
        self.bad("tensors within the .onnx only", &[ONNX, "sidecar"], |a| {
            for weight in &mut a.graph().initializer {
                weight.external_data.clear();
                weight.data_location = None;
            }
        });
        self.bad("external without location", &[ONNX, "location"], |a| {
            a.weight().external_data.clear();
            a.weight().data_location = Some(LOCATION_EXTERNAL);
        });
        let most = usize::MAX.to_string();
        for (key, value) in [
            ("offset", "-1"),
            ("offset", "ten"),
            ("offset", &most),
            ("length", "-1"),
            ("length", "1"),
            ("length", &most),
        ] {
            self.bad(
                &format!("external {key} {value}"),
                &[ONNX, "input.weight"],
                |a| a.set_external(key, value),
            );
        }
        self.bad("an offset past the file", &[SIDECAR, "input.weight"], |a| {
            a.set_external("offset", "1000000000")
        });
        self.bad("an offset of 1 too many", &[SIDECAR, "input.weight"], |a| {
            let offset: usize = a.weight().external("offset").unwrap().parse().unwrap();
            a.set_external("offset", &(offset + 1).to_string());
        });
        self.bad("an initialiser twice", &[ONNX, "twice"], |a| {
            let copy = a.weight().clone();
            a.graph().initializer.push(copy);
        });
        self.bad("an initialiser of int64", &[ONNX, "input.weight"], |a| {
            a.weight().data_type = Some(data_type::INT64);
        });
        self.bad("a negative dimension", &[ONNX, "input.weight"], |a| {
            a.weight().dims = vec![-12, 32];
        });
        self.bad("a shape that overflows", &[ONNX, "input.weight"], |a| {
            a.weight().dims = vec![i64::MAX, i64::MAX];
        });
    }

    /// What ONNX Runtime must not see.
    fn graph(&mut self) {
        for (op, domain) in [
            ("Loop", ""),
            ("If", ""),
            ("Scan", ""),
            ("SequenceMap", ""),
            ("RandomNormal", ""),
            ("NonZero", ""),
            ("QLinearMatMul", ""),
            ("Gelu", "com.microsoft"),
            ("EPContext", "com.microsoft"),
            ("Add", "ai.onnx.ml"),
            ("Nonsense", ""),
        ] {
            self.unsupported(&format!("{domain} {op}"), &["node 0", "node0"], |a| {
                let node = &mut a.graph().node[0];
                node.op_type = Some(op.into());
                node.domain = Some(domain.into());
            });
        }
        for (key, value) in [("attribute", "axis"), ("attribute", "then_branch")] {
            self.unsupported(&format!("{key} {value}"), &["node 0", value], |a| {
                a.graph().node[0].attribute = vec![AttributeProto {
                    name: Some(value.into()),
                    ..Default::default()
                }];
            });
        }
        self.unsupported("a subgraph as an axis", &["axis", "graph"], |a| {
            let norms = a.graph().node.iter_mut();
            let mut norms = norms.filter(|node| node.op_type() == "LayerNormalization");
            norms.next().unwrap().attribute[0].g = Some(GraphProto::default());
        });
        // ONNX Runtime would open the file itself.
        self.unsupported("a constant in a file", &["constant", "file"], |a| {
            let constant = constant(a);
            a.graph().node.push(constant);
        });
        let set = |domain: &str, version| OperatorSetIdProto {
            domain: Some(domain.into()),
            version: Some(version),
        };
        self.unsupported("operators of others", &["com.microsoft"], |a| {
            a.onnx.opset_import.push(set("com.microsoft", 1));
        });
        for version in [0, 12, 99] {
            self.unsupported(&format!("operator set {version}"), &["operator set"], |a| {
                a.onnx.opset_import = vec![set("", version)];
            });
        }
        self.bad("no operator set", &[ONNX, "operator set"], |a| {
            a.onnx.opset_import.clear();
        });
        self.unsupported("a sum of integers", &["input 0", "float32"], |a| {
            let one = TensorProto {
                name: Some("one".into()),
                dims: vec![1],
                data_type: Some(data_type::INT64),
                int64_data: vec![1],
                ..Default::default()
            };
            a.graph().initializer.push(one);
            let sum = node("Add", &["one", "one"], "two");
            a.graph().node.insert(0, sum);
        });
        self.unsupported("a shape that the data decide", &["not a constant"], |a| {
            a.graph().node.insert(0, node("Shape", &["x"], "sizes"));
            a.graph().node.insert(1, node("Cast", &["sizes"], "floats"));
            a.graph().node[1].attribute = vec![AttributeProto {
                name: Some("to".into()),
                i: Some(data_type::FLOAT.into()),
                r#type: Some(attribute_type::INT),
                ..Default::default()
            }];
            let reshape = node("Reshape", &["x", "floats"], "reshaped");
            a.graph().node.insert(2, reshape);
        });
        self.bad("a value from nowhere", &[ONNX, "node 0", "nowhere"], |a| {
            a.graph().node[0].input[0] = "nowhere".into();
        });
        self.bad("a loop", &[ONNX, "nothing before it"], |a| {
            let last = a.graph().node.pop().unwrap();
            a.graph().node.insert(0, last);
        });
        self.bad("a value made twice", &[ONNX, "twice"], |a| {
            let again = a.graph().node[0].clone();
            a.graph().node.push(again);
        });
        self.bad("an initialiser called x", &[ONNX, "'x'", "twice"], |a| {
            a.weight().name = Some("x".into());
        });
        self.bad("no node that makes v", &[ONNX, "'v'"], |a| {
            a.graph().node.pop();
        });
        self.bad("a v of another shape", &[ONNX, "'v'", "[n, 32]"], |a| {
            // The output layer and its cast.
            let kept = a.graph().node.len() - 2;
            a.graph().node.truncate(kept);
            let last = a.graph().node.last_mut().unwrap();
            last.output = vec!["v".into()];
        });
        self.bad("a v that ignores its inputs", &[ONNX, "'v'"], |a| {
            a.graph().node.last_mut().unwrap().output = vec!["w".into()];
            a.graph().node.push(node("Neg", &["output.weight"], "v"));
        });
        self.bad("a transposed matrix", &[ONNX, "MatMul", "[n, 12]"], |a| {
            a.weight().dims.reverse();
        });
        self.bad("a scale of another length", &[ONNX, "LayerNorm"], |a| {
            let norms = a.graph().node.iter_mut();
            let mut norms = norms.filter(|node| node.op_type() == "LayerNormalization");
            norms.next().unwrap().input[1] = "norm2.weight".into();
        });
        self.bad("too many nodes", &[ONNX, "8193 nodes"], |a| {
            let nodes = (0..8193).map(|i| node("Neg", &["x"], &format!("n{i}")));
            a.graph().node = nodes.collect();
        });
        self.bad("too many messages", &[ONNX, "65536 messages"], |a| {
            a.graph().node = vec![NodeProto::default(); 65_536];
        });
        self.bad("too many fields", &[ONNX, "524288 fields"], |a| {
            a.graph().node[0].input = vec![String::new(); 524_288];
        });
        self.bad("too large a file", &[ONNX, "16777216 bytes"], |a| {
            a.onnx.doc_string = Some("x".repeat(16 << 20));
        });
        self.bad("too much metadata", &[ONNX, "8388608"], |a| {
            a.set_prop("dwf.more", &"x".repeat(8 << 20));
        });
        self.bad("a value of 2^80 elements", &[ONNX, "too large"], |a| {
            let dims = vec![1 << 40, 1 << 40, 12];
            a.graph().initializer.push(TensorProto {
                name: Some("vast".into()),
                dims: vec![dims.len() as i64],
                data_type: Some(data_type::INT64),
                int64_data: dims,
                ..Default::default()
            });
            let expand = node("Expand", &["output.bias", "vast"], "expanded");
            a.graph().node.insert(0, expand);
        });
    }

    fn sidecar(&mut self) {
        let broken = [SIDECAR, "safetensors", "truncated"];
        self.bad("an empty sidecar", &broken, |a| a.sidecar.clear());
        self.bad("a sidecar that is not safetensors", &broken, |a| {
            a.sidecar = b"PK\x03\x04 not safetensors".to_vec();
        });
        self.bad("a header without end", &broken, |a| {
            a.sidecar[..8].fill(0xff);
        });
        self.bad("a header that is not JSON", &broken, |a| a.sidecar[8] = 0);
        self.bad("a byte missing", &broken, |a| {
            a.sidecar.pop();
        });
        self.bad("a byte too many", &broken, |a| a.sidecar.push(0));
        self.bad("a tensor that overruns the file", &broken, |a| {
            // The last tensor, in whichever order they lie.
            let end = a.sidecar.len() - a.header_end();
            a.replace_in_header(&format!(",{end}]"), &format!(",{}]", end + 2));
        });
        self.bad(
            "a sidecar of another artifact",
            &[SIDECAR, "dwf.pair"],
            |a| {
                let other = Fixture {
                    seed: 2,
                    ..Default::default()
                };
                a.sidecar = other.build().sidecar;
            },
        );
        self.bad("a sidecar without pair", &[SIDECAR, "dwf.pair"], |a| {
            a.replace_in_header("dwf.pair", "dwf.peer");
        });
        self.bad(
            "a weight that the sidecar lacks",
            &[SIDECAR, "time1.weight", "missing"],
            |a| a.replace_in_header("time1.weight", "time9.weight"),
        );
        self.bad("a header of gigabytes", &[SIDECAR, "16777216"], |a| {
            a.sidecar[..8].copy_from_slice(&(1u64 << 32).to_le_bytes());
        });
        self.bad(
            "a weight of another shape",
            &[SIDECAR, "input.weight", "[32, 12]"],
            |a| a.replace_in_header("\"shape\":[12,32]", "\"shape\":[32,12]"),
        );
        let entry = |dtype: &str, len| format!("\"dtype\":\"{dtype}\",\"shape\":[{len}]");
        self.bad("a bias of another type", &[SIDECAR, ".bias", "F16"], |a| {
            a.replace_in_header(&entry("F32", 32), &entry("F16", 64));
        });
        self.bad("tensors off their alignment", &[SIDECAR, "aligned"], |a| {
            a.shift_data();
        });
    }

    fn basis(&mut self) {
        for name in ["basis.mean", "basis.scale", "basis.components"] {
            let other = name.replace("basis", "bases");
            self.bad(
                &format!("no {name}"),
                &[SIDECAR, name, "missing"],
                move |a| a.replace_in_header(name, &other),
            );
        }
        self.bad("a basis of bfloat16", &[SIDECAR, "basis.", "BF16"], |a| {
            let at = "\"basis.mean\":{\"data_offsets\":";
            let header = String::from_utf8_lossy(&a.sidecar[8..a.header_end()]).into_owned();
            let start = header.find(at).unwrap();
            let tail = &header[start..];
            let entry = &tail[..tail.find('}').unwrap()];
            a.replace_in_header(entry, &entry.replace("\"F16\"", "\"BF16\""));
        });
        self.bad(
            "a mean of another shape",
            &[SIDECAR, "basis.mean", "[148]"],
            |a| a.replace_in_header("\"shape\":[148]", "\"shape\":[74,2]"),
        );
        self.bad(
            "components transposed",
            &[SIDECAR, "basis.components", "[12, 148]"],
            |a| a.replace_in_header("\"shape\":[12,148]", "\"shape\":[148,12]"),
        );
    }
}

fn node(op: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        name: Some(output.to_owned()),
        op_type: Some(op.to_owned()),
        ..Default::default()
    }
}

/// A Constant whose value lies in a file.
fn constant(artifact: &mut Artifact) -> NodeProto {
    NodeProto {
        output: vec!["secret".into()],
        name: Some("constant".into()),
        op_type: Some("Constant".into()),
        attribute: vec![AttributeProto {
            name: Some("value".into()),
            t: Some(artifact.weight().clone()),
            r#type: Some(attribute_type::TENSOR),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// A good artifact in whose sidecar one bit has flipped: only `verify` can tell.
pub fn flipped_bit() -> Artifact {
    let mut artifact = Fixture::default().build();
    *artifact.sidecar.last_mut().unwrap() ^= 1;
    assert_ne!(
        artifact.prop("dwf.sidecar.sha256"),
        sha256(&artifact.sidecar)
    );
    artifact
}
