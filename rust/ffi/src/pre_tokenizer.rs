//! Splits text into the pieces that BPE merges inside, by the name found in the model file.

use onig::{MatchParam, Regex, Region, SearchOptions};

use crate::Result;

const EACH_NUMBER: &str = r"\p{N}";
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

struct Family {
    names: &'static [&'static str],
    patterns: &'static [&'static str],
    ignore_merges: bool,
}

const FAMILIES: &[Family] = &[
    Family { names: &["gpt-2"], patterns: &[GPT2], ignore_merges: false },
    Family {
        names: &["smollm", "starcoder", "refact", "command-r"],
        patterns: &[EACH_NUMBER, GPT2],
        ignore_merges: false,
    },
    Family {
        names: &["llama-bpe", "llama3", "llama-v3"],
        patterns: &[LLAMA3],
        ignore_merges: true,
    },
    Family {
        names: &["qwen2", "deepseek-r1-qwen", "stablelm2"],
        patterns: &[QWEN2],
        ignore_merges: false,
    },
];

pub struct PreTokenizer {
    patterns: Vec<Regex>, // each splits the pieces of the one before
    /// A piece that is a token is emitted whole, whatever the merges say.
    pub ignore_merges: bool,
}

impl PreTokenizer {
    pub fn new(name: &str) -> Result<PreTokenizer> {
        let Some(family) = FAMILIES.iter().find(|family| family.names.contains(&name)) else {
            let known: Vec<&str> =
                FAMILIES.iter().flat_map(|family| family.names).copied().collect();
            return Err(format!(
                "the pre-tokenizer {name:?} (tokenizer.ggml.pre) is not known; known are {}",
                known.join(", ")
            ));
        };
        let patterns: std::result::Result<Vec<_>, _> =
            family.patterns.iter().map(|pattern| Regex::new(pattern)).collect();
        let patterns = patterns.map_err(|error| format!("pre-tokenizer {name:?}: {error}"))?;
        Ok(PreTokenizer { patterns, ignore_merges: family.ignore_merges })
    }

    pub fn split<'t>(
        &self,
        text: &'t str,
        each: &mut dyn FnMut(&'t str) -> Result<()>,
    ) -> Result<()> {
        split_by(&self.patterns, text, each)
    }
}

fn split_by<'t>(
    patterns: &[Regex],
    text: &'t str,
    each: &mut dyn FnMut(&'t str) -> Result<()>,
) -> Result<()> {
    let Some((pattern, rest)) = patterns.split_first() else {
        return each(text);
    };
    let mut end_last = 0;
    let mut region = Region::new();
    while let Some((start, end)) = find_from(pattern, text, end_last, &mut region)? {
        if start > end_last {
            split_by(rest, &text[end_last..start], each)?;
        }
        split_by(rest, &text[start..end], each)?;
        end_last = end;
    }
    if end_last < text.len() {
        split_by(rest, &text[end_last..], each)?;
    }
    Ok(())
}

/// The first match from `from` on; no pattern here matches the empty text.
fn find_from(
    pattern: &Regex,
    text: &str,
    from: usize,
    region: &mut Region,
) -> Result<Option<(usize, usize)>> {
    let options = SearchOptions::SEARCH_OPTION_NONE;
    // The patterns backtrack once over a run at most, so that they need no limit.
    let mut limits = MatchParam::default();
    limits.set_retry_limit_in_match(0);
    region.clear();
    pattern
        .search_with_param(text, from, text.len(), options, Some(region), limits)
        .map_err(|error| format!("the text can not be split into words: {error}"))?;
    Ok(region.pos(0))
}
