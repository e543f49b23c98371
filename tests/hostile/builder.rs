//! Safetensors files made by hand, so that they can be wrong in one chosen way.

use serde_json::{json, Map, Value};

/// A file in the making: the header and the data are free to contradict each other.
#[derive(Clone)]
pub struct Builder {
    pub header: Map<String, Value>,
    pub data: Vec<u8>,
}

impl Builder {
    /// A file without tensors.
    pub fn empty() -> Self {
        Builder {
            header: Map::new(),
            data: Vec::new(),
        }
    }

    /// A file that holds one valid mcg linear `a.q`, K = 128, N = 256, 2 bits, with a bias.
    pub fn valid() -> Self {
        let marker = 0xCBAC_1FEDu32.to_le_bytes();
        Builder::empty()
            .tensor("a.q.trellis", "I16", &[8, 16, 32], &[0x5A; 8 * 16 * 64])
            .tensor("a.q.suh", "F16", &[128], &[0x3C; 256])
            .tensor("a.q.svh", "F16", &[256], &[0x3C; 512])
            .tensor("a.q.bias", "F16", &[256], &[0x3C; 512])
            .tensor("a.q.mcg", "I32", &[], &marker)
    }

    /// Appends a tensor with its data.
    pub fn tensor(mut self, name: &str, dtype: &str, shape: &[u64], bytes: &[u8]) -> Self {
        let start = self.data.len() as u64;
        self.data.extend(bytes);
        let end = self.data.len() as u64;
        self.entry(name, dtype, shape, [start, end])
    }

    /// Appends a tensor of zeros with `bytes` bytes of data.
    pub fn zeros(self, name: &str, dtype: &str, shape: &[u64], bytes: usize) -> Self {
        self.tensor(name, dtype, shape, &vec![0; bytes])
    }

    /// Writes a header entry and no data.
    pub fn entry(mut self, name: &str, dtype: &str, shape: &[u64], offsets: [u64; 2]) -> Self {
        let info = json!({"dtype": dtype, "shape": shape, "data_offsets": offsets});
        self.header.insert(name.into(), info);
        self
    }

    /// Takes a tensor and its data away.
    pub fn without(self, name: &str) -> Self {
        let mut kept = Builder::empty();
        let mut entries: Vec<_> = self.header.iter().filter(|(key, _)| *key != name).collect();
        entries.sort_by_key(|(_, info)| info["data_offsets"][0].as_u64());
        for (key, info) in entries {
            let offset = |i: usize| info["data_offsets"][i].as_u64().unwrap() as usize;
            let bytes = &self.data[offset(0)..offset(1)];
            let shape: Vec<u64> = serde_json::from_value(info["shape"].clone()).unwrap();
            kept = kept.tensor(key, info["dtype"].as_str().unwrap(), &shape, bytes);
        }
        kept
    }

    /// Replaces a tensor by one of zeros.
    pub fn replace(self, name: &str, dtype: &str, shape: &[u64], bytes: usize) -> Self {
        self.without(name).zeros(name, dtype, shape, bytes)
    }

    /// The file.
    pub fn build(&self) -> Vec<u8> {
        framed(
            Value::Object(self.header.clone()).to_string().as_bytes(),
            &self.data,
        )
    }
}

/// A file of this header and data, with the right header length in front.
pub fn framed(header: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [&length[..], header, data].concat()
}
