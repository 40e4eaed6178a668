//! The stem: from pixels to tokens.

pub(crate) mod conv_stem;
pub(crate) mod embed;
pub(crate) mod tokens_to_token;
