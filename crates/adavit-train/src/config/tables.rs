//! Tables of settings: one over another, and what of them decides the result.

use toml::{Table, Value};

/// Settings that do not change what is learnt and found: where things are and run, and what is kept.
const PLACES: [&str; 7] = [
    "data_dir",
    "dense_checkpoint",
    "device",
    "keep",
    "snapshot_seconds",
    "tensorboard",
    "threads",
];

/// Returns `settings` without those that do not change what is learnt and found.
pub fn without_places(mut settings: Table) -> Table {
    settings.retain(|key, _| !PLACES.contains(&key));
    settings
}

/// Puts `over` on top of `base`, table by table. A table with the key `schedule` replaces the one below
/// it whole, whose other keys belong to another schedule.
pub fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) if !above.contains_key("schedule") => {
                merge(below, above);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}
