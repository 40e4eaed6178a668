//! IDX files, the format of MNIST and its relatives, compressed by gzip or not.
//!
//! ```text
//! images  00 00 08 03 | N | H | W | N*H*W bytes      integers are big-endian u32
//! labels  00 00 08 01 | N | N bytes
//! ```
//!
//! A header is only a claim: bytes are read as far as they really come, and memory grows with
//! them, so a hostile header cannot make the reader allocate. LeCun, Cortes, Burges, "The MNIST
//! database of handwritten digits", 1998.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::dataset::Dataset;
use crate::error::{Error, Result};

const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const IMAGES_MAGIC: u32 = 0x0000_0803;
#[cfg(feature = "pictures")]
const COLOURS_MAGIC: u32 = 0x0000_0804;
const LABELS_MAGIC: u32 = 0x0000_0801;
/// No data set in this format comes near; a gzip file of a few megabytes can claim, and deliver,
/// much more.
const MAX_BYTES: u64 = 1 << 32;

/// One of the two parts of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Files that begin with `train`.
    Train,
    /// Files that begin with `t10k`.
    Test,
}

/// What the two files of a part hold.
#[derive(Debug)]
pub(crate) struct RawPart {
    pub(crate) height: usize,
    pub(crate) width: usize,
    /// `(N, height, width)`.
    pub(crate) images: Vec<u8>,
    /// `(N,)`.
    pub(crate) labels: Vec<u8>,
    pub(crate) labels_path: PathBuf,
}

impl Part {
    pub(crate) fn prefix(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Test => "t10k",
        }
    }
}

/// Writes the images of `dataset` at `indices`, with their labels, as two gzip IDX files with the
/// usual names into the existing folder `dir`. A file appears whole or not at all.
///
/// # Errors
/// [`Error::Setting`] for images of more than one channel, [`Error::Io`] if writing fails.
///
/// # Panics
/// If an index is not below `dataset.len()`.
pub fn write_part(dir: &Path, part: Part, dataset: &Dataset, indices: &[u32]) -> Result<()> {
    let [channels, height, width] = dataset.dims();
    if channels != 1 {
        return Err(Error::Setting(format!(
            "{}: expected images of 1 channel, which IDX files hold, found {channels}",
            dataset.name()
        )));
    }
    let pixels = indices
        .iter()
        .map(|&i| dataset.image(i as usize))
        .collect::<Vec<_>>();
    let labels: Vec<u8> = indices.iter().map(|&i| dataset.label(i as usize)).collect();
    let prefix = part.prefix();
    write_gzip(
        &dir.join(format!("{prefix}-images-idx3-ubyte.gz")),
        &[
            IMAGES_MAGIC,
            indices.len() as u32,
            height as u32,
            width as u32,
        ],
        &pixels,
    )?;
    write_gzip(
        &dir.join(format!("{prefix}-labels-idx1-ubyte.gz")),
        &[LABELS_MAGIC, indices.len() as u32],
        &[&labels],
    )
}

/// Writes images of two or three dimensions and their labels, as [`write_part`] does.
#[cfg(feature = "pictures")]
pub(crate) fn write_images(
    dir: &Path,
    part: Part,
    dims: &[usize],
    images: &[u8],
    labels: &[u8],
) -> Result<()> {
    let (rank, magic) = match dims.len() {
        2 => (3, IMAGES_MAGIC),
        _ => (4, COLOURS_MAGIC),
    };
    let mut header = vec![magic, labels.len() as u32];
    header.extend(dims.iter().map(|dim| *dim as u32));
    let path =
        |kind: &str, rank: u8| dir.join(format!("{}-{kind}-idx{rank}-ubyte.gz", part.prefix()));
    write_gzip(&path("images", rank), &header, &[images])?;
    write_gzip(
        &path("labels", 1),
        &[LABELS_MAGIC, labels.len() as u32],
        &[labels],
    )
}

/// A file that names the classes.
pub(crate) const NAME_FILE: &str = "classnames.txt";

/// Returns whether a folder holds grey IDX files and no names of classes: [`load`](crate::load) reads
/// them, with a clear error if one is missing.
pub fn holds_unnamed_idx(dir: &Path) -> bool {
    holds_grey_idx(dir) && !dir.join(NAME_FILE).exists()
}

/// Returns whether a folder holds IDX files by their names, and none of four dimensions.
pub(crate) fn holds_grey_idx(dir: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return false;
    };
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    let idx: Vec<String> = names.filter(|name| name.contains("-ubyte")).collect();
    !idx.is_empty() && !idx.iter().any(|name| name.contains("idx4"))
}

/// Reads the labels and the images of one part from the folder `dir`.
pub(crate) fn read_part(dir: &Path, part: Part) -> Result<RawPart> {
    if !dir.is_dir() {
        let found = if dir.exists() {
            "not a folder"
        } else {
            "no such folder"
        };
        return Err(Error::data(
            dir,
            format!(
                "{found}; expected a folder of the four IDX files train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and t10k-labels-idx1-ubyte.gz"
            ),
        ));
    }
    let images_path = find(dir, part, "images", 3)?;
    let labels_path = find(dir, part, "labels", 1)?;
    let labels = read_labels(&labels_path)?;
    let mut file = Reader::open(&images_path)?;
    let [n_images, height, width] = file.header(IMAGES_MAGIC, "images")?;
    if n_images as usize != labels.len() {
        return Err(Error::data(
            &images_path,
            format!(
                "{n_images} images, but {} holds {} labels; take both from the same data set",
                labels_path.display(),
                labels.len()
            ),
        ));
    }
    let n_bytes = expected_bytes([n_images, height, width])
        .map_err(|message| Error::data(&images_path, message))?;
    Ok(RawPart {
        height: height as usize,
        width: width as usize,
        images: file.body(n_bytes)?,
        labels,
        labels_path,
    })
}

/// Images of any number of channels, as a file holds them.
#[cfg(feature = "pictures")]
#[derive(Debug)]
pub(crate) struct RawImages {
    pub(crate) path: PathBuf,
    /// Those of one image: two or three.
    pub(crate) dims: Vec<usize>,
    /// `(N, dims)`.
    pub(crate) bytes: Vec<u8>,
    /// `(N,)`.
    pub(crate) labels: Vec<u8>,
}

/// Returns whether a folder holds the images of a part.
#[cfg(feature = "pictures")]
pub(crate) fn has_part(dir: &Path, part: Part) -> bool {
    [3, 4]
        .iter()
        .any(|rank| find(dir, part, "images", *rank).is_ok())
}

/// Reads the labels and the images of one part, of three or four dimensions.
#[cfg(feature = "pictures")]
pub(crate) fn read_images(dir: &Path, part: Part) -> Result<RawImages> {
    let Ok(path) = find(dir, part, "images", 4) else {
        let raw = read_part(dir, part)?;
        return Ok(RawImages {
            path: find(dir, part, "images", 3)?,
            dims: vec![raw.height, raw.width],
            bytes: raw.images,
            labels: raw.labels,
        });
    };
    let labels = read_labels(&find(dir, part, "labels", 1)?)?;
    let mut file = Reader::open(&path)?;
    let [n, a, b, c] = file.header(COLOURS_MAGIC, "images")?;
    if n as usize != labels.len() {
        let message = format!(
            "{n} images, but {} labels; take both from the same data set",
            labels.len()
        );
        return Err(Error::data(&path, message));
    }
    let plane = u32::try_from(u64::from(b) * u64::from(c)).unwrap_or(u32::MAX);
    let n_bytes = expected_bytes([n, a, plane]).map_err(|message| Error::data(&path, message))?;
    let bytes = file.body(n_bytes)?;
    Ok(RawImages {
        dims: [a, b, c].map(|dim| dim as usize).to_vec(),
        bytes,
        labels,
        path,
    })
}

/// Reads a file of at least one label.
fn read_labels(path: &Path) -> Result<Vec<u8>> {
    let mut file = Reader::open(path)?;
    let [n] = file.header(LABELS_MAGIC, "labels")?;
    if n == 0 {
        let message = "expected at least one label, found none".to_owned();
        return Err(Error::data(path, message));
    }
    file.body(u64::from(n))
}

/// Returns the bytes of `n` images of `height` times `width` pixels, or why a header cannot claim them.
fn expected_bytes([n, height, width]: [u32; 3]) -> Result<u64, String> {
    if height == 0 || width == 0 {
        return Err(format!(
            "expected images of at least one pixel, found {height}x{width}"
        ));
    }
    // Three u32 fit a u128.
    let expected = u128::from(n) * u128::from(height) * u128::from(width);
    let expected = u64::try_from(expected).ok();
    expected.filter(|&bytes| bytes <= MAX_BYTES).ok_or_else(|| {
        format!(
            "the header claims {n} images of {height}x{width}, expected at most {MAX_BYTES} bytes; \
             the file is damaged"
        )
    })
}

fn find(dir: &Path, part: Part, kind: &str, rank: u8) -> Result<PathBuf> {
    let prefix = part.prefix();
    let names = [
        format!("{prefix}-{kind}-idx{rank}-ubyte.gz"),
        format!("{prefix}-{kind}-idx{rank}-ubyte"),
        format!("{prefix}-{kind}.idx{rank}-ubyte.gz"),
        format!("{prefix}-{kind}.idx{rank}-ubyte"),
    ];
    let found = names
        .iter()
        .map(|name| dir.join(name))
        .find(|path| path.is_file());
    found.ok_or_else(|| {
        let message = format!(
            "no file of {prefix} {kind}, tried {}; put the four IDX files of the data set there",
            names.join(", ")
        );
        Error::data(dir, message)
    })
}

/// A file being read, decompressed on the way if it begins like gzip.
struct Reader<'a> {
    path: &'a Path,
    gzip: bool,
    bytes: Box<dyn Read>,
}

impl<'a> Reader<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let unreadable = |error| Error::data(path, format!("cannot be read: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let mut file = BufReader::new(file);
        let start = file.fill_buf().map_err(unreadable)?;
        let gzip = start.starts_with(&GZIP_MAGIC);
        Ok(Self {
            path,
            gzip,
            bytes: if gzip {
                Box::new(MultiGzDecoder::new(file))
            } else {
                Box::new(file)
            },
        })
    }

    /// Checks the magic number and returns the `N` dimensions after it.
    fn header<const N: usize>(&mut self, magic: u32, kind: &str) -> Result<[u32; N]> {
        let header = self.at_most(4 + 4 * N as u64)?;
        let mut words = header
            .chunks_exact(4)
            .map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]));
        if let Some(found) = words.next().filter(|&found| found != magic) {
            return Err(self.fault(format!(
                "expected IDX {kind}, which begin with {magic:#010x}, found {found:#010x}; is it another file under this name?"
            )));
        }
        let mut dims = [0; N];
        for dim in &mut dims {
            *dim = words.next().ok_or_else(|| {
                self.fault(format!(
                    "truncated: expected a header of {} bytes, found {}; copy or download the file again",
                    4 + 4 * N,
                    header.len()
                ))
            })?;
        }
        Ok(dims)
    }

    /// Reads the rest of the file, which must be `expected` bytes.
    fn body(&mut self, expected: u64) -> Result<Vec<u8>> {
        // One byte more than expected: it shows trailing bytes, and makes gzip check its sum.
        let mut bytes = self.at_most(expected + 1)?;
        let found = bytes.len() as u64;
        if found < expected {
            return Err(self.fault(format!(
                "truncated: expected {expected} bytes after the header, found {found}; copy or download the file again"
            )));
        }
        if found > expected {
            return Err(self.fault(format!(
                "expected {expected} bytes after the header, found more; header and content are not of the same file"
            )));
        }
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    fn at_most(&mut self, limit: u64) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let result = (&mut self.bytes).take(limit).read_to_end(&mut bytes);
        match result {
            Ok(_) => Ok(bytes),
            // The decoder's own complaints have no system error code.
            Err(error) if self.gzip && error.raw_os_error().is_none() => {
                let what = if error.kind() == std::io::ErrorKind::UnexpectedEof {
                    "truncated gzip: the file ends early".to_owned()
                } else {
                    format!("corrupt gzip: {error}")
                };
                Err(self.fault(format!("{what}; copy or download the file again")))
            }
            Err(error) => Err(self.fault(format!("cannot be read: {error}"))),
        }
    }

    fn fault(&self, message: String) -> Error {
        Error::data(self.path, message)
    }
}

/// Writes `header` and `chunks` beside `path`, then renames.
fn write_gzip(path: &Path, header: &[u32], chunks: &[&[u8]]) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut builder = tempfile::Builder::new();
        // A temporary file is private by default; this one becomes an ordinary file.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        let file = builder.tempfile_in(dir)?;
        let mut gzip = GzEncoder::new(BufWriter::new(file), Compression::best());
        for word in header {
            gzip.write_all(&word.to_be_bytes())?;
        }
        for chunk in chunks {
            gzip.write_all(chunk)?;
        }
        let file = gzip
            .finish()?
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    write().map_err(Error::io("writing", path))
}
