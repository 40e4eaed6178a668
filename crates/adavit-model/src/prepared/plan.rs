//! What one block computes of which image: the parts of its products that the gates leave.

use std::ops::Range;

use adavit_decision::{HardPolicy, HeadDeactivation};
use adavit_kernels::{ImageHeads, ProductParts};

use super::decide::At;

/// The sizes of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) n: usize,
    pub(super) c: usize,
    pub(super) num_heads: usize,
    pub(super) hidden: usize,
}

impl Sizes {
    /// D.
    pub(super) fn head(self) -> usize {
        self.c / self.num_heads
    }
}

/// What the gates of a block mean for its products.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    pub(super) sizes: Sizes,
    /// What a head that is off leaves out, if heads are decided on.
    pub(super) heads: Option<HeadDeactivation>,
    /// Whether the MLP runs on kept tokens alone.
    pub(super) tokens_with_mlp: bool,
    /// Whether products whose outputs belong to heads compute all of them.
    pub(super) whole: bool,
}

/// What one block computes of which image.
#[derive(Debug, Default)]
pub(super) struct BlockPlan {
    /// The heads that attend, image by image; their rows are those of `qkv`.
    pub(super) heads: Vec<usize>,
    pub(super) images: Vec<ImageHeads>,
    pub(super) qkv: ProductParts,
    pub(super) proj: ProductParts,
    pub(super) fc1: ProductParts,
    pub(super) fc2: ProductParts,
    /// Rows whose MLP is the constant without heads.
    pub(super) constant_rows: Vec<usize>,
    kept: Ranges,
}

/// Ranges of channels that belong to an image's heads.
#[derive(Debug, Default)]
struct Ranges {
    /// Of C.
    channels: Vec<Range<usize>>,
    /// Of R.
    hidden: Vec<Range<usize>>,
    /// Of 3 C.
    qkv: Vec<Range<usize>>,
}

/// An image of the buffers, and what it keeps.
#[derive(Clone, Copy)]
struct Kept<'a> {
    image: usize,
    tokens: &'a [bool],
    heads: &'a [bool],
}

impl BlockPlan {
    /// Plans the block and the images `at`, `b` of them, by what `policy` keeps.
    pub(super) fn fill(&mut self, rules: Rules, policy: &HardPolicy, at: At, b: usize) {
        self.clear();
        for image in 0..b {
            let kept = Kept {
                image,
                tokens: policy.tokens(at.block, at.first_image + image),
                heads: policy.heads(at.block, at.first_image + image),
            };
            let [attention, mlp] = policy.sublayers(at.block, at.first_image + image);
            if attention {
                self.attention(rules, kept);
            }
            if mlp {
                self.mlp(rules, kept);
            }
        }
    }

    fn clear(&mut self) {
        self.heads.clear();
        self.images.clear();
        for parts in [&mut self.qkv, &mut self.proj, &mut self.fc1, &mut self.fc2] {
            parts.clear();
        }
        self.constant_rows.clear();
    }

    fn attention(&mut self, rules: Rules, kept: Kept) {
        let Sizes { n, c, .. } = rules.sizes;
        let partial = rules.heads == Some(HeadDeactivation::Partial);
        let rows = kept.tokens.iter().enumerate().filter(|(_, on)| **on);
        let rows = rows.map(|(token, _)| kept.image * n + token);
        let computed = self.push_heads(kept.heads, true);
        let passing = if partial {
            self.push_heads(kept.heads, false)
        } else {
            0..0
        };
        self.kept.attention(rules, kept.heads, !computed.is_empty());
        let Ranges { channels, qkv, .. } = &self.kept;
        let start = self.qkv.rows().len();
        self.qkv.push(rows.clone(), &[0..c], qkv);
        self.proj.push(rows, channels, &[0..c]);
        self.images.push(ImageHeads {
            rows: start..self.qkv.rows().len(),
            heads: computed,
            passing,
        });
    }

    /// Adds the heads whose gate is `wanted`, and returns their places.
    fn push_heads(&mut self, heads: &[bool], wanted: bool) -> Range<usize> {
        let start = self.heads.len();
        let some = heads.iter().enumerate().filter(|(_, on)| **on == wanted);
        self.heads.extend(some.map(|(head, _)| head));
        start..self.heads.len()
    }

    fn mlp(&mut self, rules: Rules, kept: Kept) {
        let Sizes { n, c, hidden, .. } = rules.sizes;
        let rows = (0..n).filter(|token| !rules.tokens_with_mlp || kept.tokens[*token]);
        let rows = rows.map(|token| kept.image * n + token);
        if rules.heads == Some(HeadDeactivation::Full) && !kept.heads.contains(&true) {
            self.constant_rows.extend(rows);
            return;
        }
        self.kept.mlp(rules, kept.heads);
        let Ranges {
            channels,
            hidden: groups,
            ..
        } = &self.kept;
        if rules.whole && !groups.is_empty() {
            self.fc1.push(rows.clone(), channels, &[0..hidden]);
        } else {
            self.fc1.push(rows.clone(), channels, groups);
        }
        self.fc2.push(rows, groups, &[0..c]);
    }
}

impl Ranges {
    /// Those of query, key and value, and of the projection's inputs; `some` heads are on or none.
    fn attention(&mut self, rules: Rules, heads: &[bool], some: bool) {
        let (sizes, c) = (rules.sizes, rules.sizes.c);
        let partial = rules.heads == Some(HeadDeactivation::Partial);
        let Self { channels, qkv, .. } = self;
        channels.clear();
        qkv.clear();
        if rules.whole && some {
            qkv.push(0..3 * c);
        } else {
            for part in 0..2 {
                push_ranges(qkv, heads, sizes.head(), part * c);
            }
            if partial {
                qkv.push(2 * c..3 * c);
            } else {
                push_ranges(qkv, heads, sizes.head(), 2 * c);
            }
        }
        if partial {
            channels.push(0..c);
        } else {
            push_ranges(channels, heads, sizes.head(), 0);
        }
    }

    /// Those of fc1's inputs and outputs.
    fn mlp(&mut self, rules: Rules, heads: &[bool]) {
        let Sizes { c, hidden, .. } = rules.sizes;
        self.channels.clear();
        self.hidden.clear();
        match rules.heads {
            Some(HeadDeactivation::Full) => {
                push_ranges(&mut self.channels, heads, rules.sizes.head(), 0);
                self.hidden.push(0..hidden);
            }
            Some(HeadDeactivation::HeadV2) => {
                self.channels.push(0..c);
                push_ranges(&mut self.hidden, heads, hidden / rules.sizes.num_heads, 0);
            }
            Some(HeadDeactivation::Partial) | None => {
                self.channels.push(0..c);
                self.hidden.push(0..hidden);
            }
        }
    }
}

/// Adds to `ranges` those of the groups of `width` that are on; neighbours become one.
fn push_ranges(ranges: &mut Vec<Range<usize>>, on: &[bool], width: usize, start: usize) {
    let from = ranges.len();
    for (index, _) in on.iter().enumerate().filter(|(_, on)| **on) {
        let range = start + index * width..start + (index + 1) * width;
        match ranges[from..].last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
}
