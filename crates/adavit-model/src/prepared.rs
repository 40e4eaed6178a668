//! The plain model prepared for inference: weights packed once, buffers reused, no graph.
//!
//! Logits have the same bits as those of [`crate::VisionTransformer::forward`] in f32 on the CPU:
//! an image's do not depend on its batch, nor on the number of threads.

use adavit_kernels::{
    ImageHeads, Part, PreparedLayerNorm, PreparedLinear, Rows, Work, attend, patchify,
};
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;

use crate::{Error, ModelConfig, Result};

/// Tokens that are worked on at a time, whole images: their hidden activations stay in cache.
const TOKENS: usize = 1600;

/// A plain ViT/DeiT for inference on the CPU.
///
/// A forward takes `&self`: threads share the model, each with a [`Workspace`] of its own.
#[derive(Debug)]
pub struct PreparedTransformer {
    config: ModelConfig,
    patch_embed: PreparedLinear,
    /// `(N, C)`: position embedding, with the class token added to the first row.
    positions: Vec<f32>,
    blocks: Vec<PreparedBlock>,
    norm: PreparedLayerNorm,
    head: PreparedLinear,
}

#[derive(Debug)]
struct PreparedBlock {
    norm1: PreparedLayerNorm,
    query: PreparedLinear,
    key: PreparedLinear,
    value: PreparedLinear,
    proj: PreparedLinear,
    norm2: PreparedLayerNorm,
    fc1: PreparedLinear,
    fc2: PreparedLinear,
}

/// Buffers of a forward, kept from one to the next.
#[derive(Debug, Default)]
pub struct Workspace {
    xs: Vec<f32>,
    normed: Vec<f32>,
    qkv: [Vec<f32>; 3],
    attended: Vec<f32>,
    hidden: Vec<f32>,
    patches: Vec<f32>,
    class: Vec<f32>,
    /// Rows of patch tokens, and all rows.
    patch_rows: Vec<usize>,
    rows: Vec<usize>,
    heads: Vec<usize>,
    work: Work,
}

impl Workspace {
    /// Returns the multiply-adds done since the last call.
    pub fn take_macs(&mut self) -> u64 {
        self.work.take_macs()
    }
}

impl PreparedTransformer {
    /// Packs the tensors of `vb`, named as in published checkpoints; decision networks are left out.
    ///
    /// # Errors
    /// If the configuration is invalid, or a tensor is missing or misshapen.
    pub fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        config.validate()?;
        let (c, p, n) = (config.embed_dim, config.patch_size, config.num_tokens());
        let patch = vb.pp("patch_embed").pp("proj");
        let weight = patch.get((c, config.in_chans, p, p), "weight")?;
        let bias = patch.get(c, "bias")?;
        let positions = vb.get((1, n, c), "pos_embed")?.flatten_all()?;
        let mut positions = positions.to_vec1::<f32>()?;
        let class = vb.get((1, 1, c), "cls_token")?.flatten_all()?;
        for (x, class) in positions.iter_mut().zip(class.to_vec1::<f32>()?) {
            *x += class;
        }
        let blocks = (0..config.depth)
            .map(|block| PreparedBlock::new(config, &vb.pp("blocks").pp(block)))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            patch_embed: PreparedLinear::new(&weight.flatten_from(1)?, Some(&bias), c)?,
            positions,
            blocks,
            norm: norm(config, &vb.pp("norm"))?,
            head: linear(c, config.num_classes, true, &vb.pp("head"))?,
            config: config.clone(),
        })
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Returns the logits, `(B, K)`, of the plain model.
    ///
    /// # Shapes
    /// `xs`: `(B, in_chans, height, width)`, f32 on the CPU.
    ///
    /// # Errors
    /// If `xs` has another shape, dtype or device.
    pub fn forward_dense(&self, xs: &Tensor, workspace: &mut Workspace) -> Result<Tensor> {
        let (b, c, h, w) = xs.dims4()?;
        let (height, width) = self.config.img_size;
        if (c, h, w) != (self.config.in_chans, height, width) || !xs.device().is_cpu() {
            return Err(Error::Config(format!(
                "images: expected shape (B, {}, {height}, {width}) on the CPU, found {:?} on {:?}",
                self.config.in_chans,
                xs.dims(),
                xs.device().location()
            )));
        }
        let group = (TOKENS / self.config.num_tokens()).max(1);
        let k = self.config.num_classes;
        let mut logits = vec![0.0; b * k];
        for (index, logits) in logits.chunks_mut(group * k).enumerate() {
            let images = xs.narrow(0, index * group, logits.len() / k)?;
            self.forward_group(&images, logits, workspace)?;
        }
        Ok(Tensor::from_vec(logits, (b, k), xs.device())?)
    }

    fn forward_group(&self, xs: &Tensor, logits: &mut [f32], ws: &mut Workspace) -> Result<()> {
        let (b, n, c) = (xs.dim(0)?, self.config.num_tokens(), self.config.embed_dim);
        ws.reserve(&self.config, b);
        self.embed(xs, ws)?;
        for block in &self.blocks {
            block.forward(&self.config, b, ws);
        }
        let class = ws.class.chunks_exact_mut(c);
        for (class, xs) in class.zip(ws.xs.chunks_exact(n * c)) {
            class.copy_from_slice(&xs[..c]);
        }
        self.norm.write(&ws.class, &mut ws.normed, Rows::All(b));
        let all = [Part {
            rows: Rows::All(b),
            inner: &[0..c],
            columns: &[0..self.config.num_classes],
        }];
        self.head
            .write(&ws.normed[..b * c], logits, &all, &mut ws.work);
        Ok(())
    }

    /// Fills the tokens: positions, then patches through their map on top.
    fn embed(&self, xs: &Tensor, ws: &mut Workspace) -> Result<()> {
        let patches = patchify(xs, self.config.patch_size)?;
        let depth = patches.dim(D::Minus1)?;
        let patches = patches.flatten_all()?.to_vec1::<f32>()?;
        let (n, c) = (self.config.num_tokens(), self.config.embed_dim);
        let images = patches.chunks_exact((n - 1) * depth);
        // A row for the class token in front, so that patches and tokens have the same rows.
        for (room, image) in ws.patches.chunks_exact_mut(n * depth).zip(images) {
            room[depth..].copy_from_slice(image);
        }
        for xs in ws.xs.chunks_exact_mut(n * c) {
            xs.copy_from_slice(&self.positions);
        }
        let part = [Part {
            rows: Rows::Some(&ws.patch_rows),
            inner: &[0..depth],
            columns: &[0..c],
        }];
        self.patch_embed
            .add(&ws.patches, &mut ws.xs, &part, &mut ws.work);
        Ok(())
    }
}

impl PreparedBlock {
    fn new(config: &ModelConfig, vb: &VarBuilder) -> candle_core::Result<Self> {
        let (c, hidden) = (config.embed_dim, config.hidden_dim());
        let (attn, mlp) = (vb.pp("attn"), vb.pp("mlp"));
        let qkv = |name: &str| linear(c, c, config.qkv_bias, &attn.pp(name));
        Ok(Self {
            norm1: norm(config, &vb.pp("norm1"))?,
            query: qkv("query")?,
            key: qkv("key")?,
            value: qkv("value")?,
            proj: linear(c, c, true, &attn.pp("proj"))?,
            norm2: norm(config, &vb.pp("norm2"))?,
            fc1: linear(c, hidden, true, &mlp.pp("fc1"))?,
            fc2: linear(hidden, c, true, &mlp.pp("fc2"))?,
        })
    }

    fn forward(&self, config: &ModelConfig, b: usize, ws: &mut Workspace) {
        let (n, c, hidden) = (config.num_tokens(), config.embed_dim, config.hidden_dim());
        let rows = Rows::All(b * n);
        let (width, wide) = (&[0..c], &[0..hidden]);
        let narrow = [Part {
            rows,
            inner: width,
            columns: width,
        }];
        self.norm1.write(&ws.xs, &mut ws.normed, rows);
        let [q, k, v] = &mut ws.qkv;
        for (linear, ys) in [
            (&self.query, &mut *q),
            (&self.key, &mut *k),
            (&self.value, &mut *v),
        ] {
            linear.write(&ws.normed, ys, &narrow, &mut ws.work);
        }
        let images: Vec<ImageHeads> = ws
            .rows
            .chunks_exact(n)
            .map(|rows| ImageHeads {
                rows,
                heads: &ws.heads,
            })
            .collect();
        let sizes = (config.num_heads, c / config.num_heads);
        attend((q, k, v), &mut ws.attended, sizes, &images, &mut ws.work);
        self.proj
            .add(&ws.attended, &mut ws.xs, &narrow, &mut ws.work);
        self.norm2.write(&ws.xs, &mut ws.normed, rows);
        let widen = [Part {
            rows,
            inner: width,
            columns: wide,
        }];
        self.fc1
            .write_gelu(&ws.normed, &mut ws.hidden, &widen, &mut ws.work);
        let narrow = [Part {
            rows,
            inner: wide,
            columns: width,
        }];
        self.fc2.add(&ws.hidden, &mut ws.xs, &narrow, &mut ws.work);
    }
}

impl Workspace {
    /// Makes room for `b` images; allocates only where more is needed than ever before.
    fn reserve(&mut self, config: &ModelConfig, b: usize) {
        let (n, c) = (config.num_tokens(), config.embed_dim);
        let tokens = b * n;
        let buffers = [&mut self.xs, &mut self.normed, &mut self.attended];
        for buffer in buffers.into_iter().chain(&mut self.qkv) {
            buffer.resize(tokens * c, 0.0);
        }
        self.hidden.resize(tokens * config.hidden_dim(), 0.0);
        let depth = config.in_chans * config.patch_size.pow(2);
        self.patches.resize(tokens * depth, 0.0);
        self.class.resize(b * c, 0.0);
        self.rows.clear();
        self.rows.extend(0..tokens);
        self.patch_rows.clear();
        self.patch_rows
            .extend((0..tokens).filter(|row| row % n != 0));
        self.heads.clear();
        self.heads.extend(0..config.num_heads);
    }
}

fn linear(
    n_in: usize,
    n_out: usize,
    bias: bool,
    vb: &VarBuilder,
) -> candle_core::Result<PreparedLinear> {
    let weight = vb.get((n_out, n_in), "weight")?;
    let bias = bias.then(|| vb.get(n_out, "bias")).transpose()?;
    PreparedLinear::new(&weight, bias.as_ref(), n_out)
}

fn norm(config: &ModelConfig, vb: &VarBuilder) -> candle_core::Result<PreparedLayerNorm> {
    let c = config.embed_dim;
    PreparedLayerNorm::new(
        &vb.get(c, "weight")?,
        &vb.get(c, "bias")?,
        config.layer_norm_eps,
    )
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{Capture, Checkpoint, initial_tensors};

    fn images(config: &ModelConfig, b: usize) -> Tensor {
        let (height, width) = config.img_size;
        let len = b * config.in_chans * height * width;
        let values: Vec<f32> = (0..len).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        Tensor::from_vec(values, (b, config.in_chans, height, width), &Device::Cpu).unwrap()
    }

    fn prepared(preset: &str) -> (Checkpoint, PreparedTransformer) {
        let config = ModelConfig::preset(preset).unwrap();
        let tensors = initial_tensors(&config, 3, 0.0).unwrap();
        let checkpoint = Checkpoint { config, tensors };
        let prepared = checkpoint.prepared().unwrap();
        (checkpoint, prepared)
    }

    #[test]
    fn logits_are_those_of_the_plain_forward_for_any_batch() {
        for preset in ["nano_patch4_28", "nano_patch7_28", "nano_wide_patch7_28"] {
            let (checkpoint, prepared) = prepared(preset);
            let model = checkpoint.model(&Device::Cpu).unwrap();
            // More than one group of images, then fewer: buffers are kept.
            let mut workspace = Workspace::default();
            for b in [131, 3, 1, 0] {
                let images = images(&checkpoint.config, b);
                let expected = model.forward(&images, Capture::default()).unwrap().logits;
                let found = prepared.forward_dense(&images, &mut workspace).unwrap();
                assert_eq!(found.dims(), expected.dims());
                let difference = (found - expected).unwrap().abs().unwrap();
                let values = difference.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                // The plain forward embeds in another order; both round.
                assert!(values.iter().all(|x| *x <= 1e-5), "{preset}, {b} images");
                let macs = checkpoint.config.geometry().dense_macs();
                assert_eq!(workspace.take_macs(), macs * b as u64, "{preset}");
            }
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch() {
        let (checkpoint, prepared) = prepared("nano_patch7_28");
        let images = images(&checkpoint.config, 9);
        let logits = |images: &Tensor| {
            let found = prepared.forward_dense(images, &mut Workspace::default());
            found.unwrap().to_vec2::<f32>().unwrap()
        };
        let together = logits(&images);
        for (i, row) in together.iter().enumerate() {
            let alone = logits(&images.narrow(0, i, 1).unwrap());
            assert!(alone[0] == *row, "image {i}");
        }
    }

    #[test]
    fn threads_share_a_model() {
        let (checkpoint, prepared) = prepared("nano_patch7_28");
        let images = images(&checkpoint.config, 5);
        let run = || {
            let found = prepared.forward_dense(&images, &mut Workspace::default());
            found.unwrap().to_vec2::<f32>().unwrap()
        };
        let expected = run();
        std::thread::scope(|scope| {
            let threads = [scope.spawn(run), scope.spawn(run)];
            for thread in threads {
                assert!(thread.join().unwrap() == expected);
            }
        });
    }

    #[test]
    fn images_of_another_size_are_refused() {
        let (_, prepared) = prepared("nano_patch7_28");
        let images = Tensor::zeros((1, 1, 28, 14), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = prepared.forward_dense(&images, &mut Workspace::default());
        assert!(error.unwrap_err().to_string().contains("expected shape"));
    }
}
