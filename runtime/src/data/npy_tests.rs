#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::io::Cursor;

use super::*;

/// An array as NumPy writes it: `numpy.lib.format`, version 1.0.
fn npy(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let mut dict = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while (10 + dict.len() + 1) % 64 != 0 {
        dict.push(' ');
    }
    dict.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(u16::try_from(dict.len()).unwrap().to_le_bytes());
    bytes.extend(dict.bytes());
    bytes.extend(data);
    bytes
}

fn decode(file: &str, array: &str, bytes: &[u8]) -> Result<Tensor, DataError> {
    read_array(file, array, bytes.len() as u64, &mut &*bytes)
}

fn read_archive(file: &str, source: Cursor<impl AsRef<[u8]>>) -> Result<IndexMap<String, Tensor>, DataError> {
    let mut archive = Archive::new(file, source)?;
    let names: Vec<String> = archive.names().map(str::to_owned).collect();
    names.into_iter().map(|name| Ok((name.clone(), archive.read(&name)?.unwrap()))).collect()
}

/// An archive with two arrays, the first stored, the second compressed, made by the `zip` and `npyz` crates.
pub(crate) fn archive() -> Vec<u8> {
    use npyz::WriterBuilder;
    let mut cursor = Cursor::new(Vec::new());
    {
        let mut writer = npyz::npz::NpzWriter::new(&mut cursor);
        let x: Vec<f32> = (0..12).map(|i| i as f32 * 0.5).collect();
        let stored = npyz::zip::write::FileOptions::default().compression_method(npyz::zip::CompressionMethod::Stored);
        let mut array = writer.array("x", stored).unwrap().default_dtype().shape(&[6, 2]).begin_nd().unwrap();
        array.extend(x).unwrap();
        array.finish().unwrap();
        let mut array = writer.array("y", Default::default()).unwrap().default_dtype().shape(&[6]).begin_nd().unwrap();
        array.extend([0_i64, 1, 2, 3, 4, 5]).unwrap();
        array.finish().unwrap();
    }
    cursor.into_inner()
}

#[test]
fn element_types_are_read_by_value() {
    let read = |descr: &str, data: &[u8]| decode("f.npz", "a", &npy(descr, "False", "(2,)", data));
    assert_eq!(read("<f4", &[0, 0, 128, 63, 0, 0, 0, 192]).unwrap().as_slice::<f32>().unwrap(), [1.0, -2.0]);
    assert_eq!(read(">f4", &[63, 128, 0, 0, 192, 0, 0, 0]).unwrap().as_slice::<f32>().unwrap(), [1.0, -2.0]);
    assert_eq!(read("<i2", &[255, 255, 5, 0]).unwrap().as_slice::<i32>().unwrap(), [-1, 5]);
    assert_eq!(read("<u2", &[255, 255, 5, 0]).unwrap().as_slice::<i32>().unwrap(), [65535, 5]);
    assert_eq!(read("|b1", &[2, 0]).unwrap().as_slice::<u8>().unwrap(), [1, 0]);
    assert_eq!(read("<f2", &[0, 60, 0, 192]).unwrap().get(1), Some(-2.0));
    let huge = [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 128];
    assert!(matches!(read("<u8", &huge), Err(DataError::DamagedArray { .. })));
    assert_eq!(read("<i8", &huge).unwrap().as_slice::<i64>().unwrap(), [7, i64::MIN]);
    assert!(matches!(read("<c8", &[0; 16]), Err(DataError::Unsupported { .. })));
    assert!(matches!(read("|O", &[0; 16]), Err(DataError::Unsupported { .. })));
}

#[test]
fn column_major_arrays_are_turned() {
    // [[1, 2, 3], [4, 5, 6]] in column-major order.
    let bytes = npy("|u1", "True", "(2, 3)", &[1, 4, 2, 5, 3, 6]);
    assert_eq!(decode("f", "a", &bytes).unwrap().as_slice::<u8>().unwrap(), [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_short_array_says_what_is_missing() {
    let message = decode("f.npz", "x", &npy("<f4", "False", "(3, 2)", &[0; 20])).unwrap_err().to_string();
    assert!(message.starts_with("f.npz: array `x`: the shape [3, 2] needs 24 bytes, but 20 follow;"), "{message}");
    for shape in ["(4294967295, 4294967295, 4294967295)", "(0, 4000000000, 4000000000, 4000000000)", "(-1,)", "(", "7"]
    {
        assert!(decode("f", "x", &npy("<f8", "False", shape, &[])).is_err(), "{shape}");
    }
}

#[test]
fn an_archive_is_read_in_order() {
    let arrays = read_archive("f.npz", Cursor::new(archive())).unwrap();
    assert_eq!(arrays.keys().collect::<Vec<_>>(), ["x", "y"]);
    assert_eq!(arrays["x"].ty().to_string(), "f32[6, 2]");
    assert_eq!(arrays["x"].get(11), Some(5.5));
    assert_eq!(arrays["y"].as_slice::<i64>().unwrap(), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_truncated_archive_is_an_error() {
    let whole = archive();
    for length in (0..whole.len()).step_by(37) {
        assert!(read_archive("f.npz", Cursor::new(&whole[..length])).is_err(), "{length}");
    }
}

#[test]
fn a_damaged_archive_never_panics() {
    let whole = archive();
    for position in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut bytes = whole.clone();
            bytes[position] ^= flip;
            let _ = read_archive("f.npz", Cursor::new(bytes));
        }
    }
}

#[test]
fn what_is_written_is_read_back() {
    let tensors = [
        Tensor::from_vec([2, 3], vec![1.0_f32, 2.0, 3.0, 4.0, 5.0, f32::NAN]).unwrap(),
        Tensor::from_vec([4], vec![1_i64, -2, 3, i64::MAX]).unwrap(),
        Tensor::scalar(7_u8).unwrap(),
        Tensor::zeros(TensorType::new(DType::F16, [0, 3])).unwrap(),
    ];
    for tensor in tensors {
        let mut bytes = Vec::new();
        write_npy(&mut bytes, &tensor).unwrap();
        assert_eq!((bytes.len() - tensor.bytes().len()) % 64, 0, "the data is aligned as the format asks");
        assert_eq!(decode("f.npy", "f", &bytes).unwrap(), tensor);
    }
}

#[test]
fn a_missing_file_is_named() {
    let message = read_npz(Path::new("no/such.npz")).unwrap_err().to_string();
    assert!(message.starts_with("no/such.npz: No such file or directory"), "{message}");
}

#[test]
fn an_entry_that_claims_more_than_the_file_has_asks_for_no_memory() {
    // The header wants 4 GB of floats: refused by the sizes of the entry, not by the allocator.
    let message = decode("f.npz", "x", &npy("<f4", "False", "(1073741824,)", &[0; 8])).unwrap_err().to_string();
    assert!(message.contains("needs 4294967296 bytes, but 8 follow"), "{message}");
    let mut long = npy("<f4", "False", "(1,)", &[0; 4]);
    long[9] = 0xff;
    assert!(decode("f", "x", &long).is_err(), "a header longer than the file");
}

#[test]
fn large_arrays_are_read_whole_in_any_encoding() {
    // More than one chunk of each path: as it is, swapped, widened.
    let count = 70_001_usize;
    let shape = format!("({count},)");
    let le: Vec<u8> = (0..count as u32).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let be: Vec<u8> = (0..count as u32).flat_map(|i| (i as f32).to_be_bytes()).collect();
    let short: Vec<u8> = (0..count).flat_map(|i| (i as i16).to_le_bytes()).collect();
    for (descr, data) in [("<f4", le), (">f4", be)] {
        let read = decode("f", "x", &npy(descr, "False", &shape, &data)).unwrap();
        assert!(read.as_slice::<f32>().unwrap().iter().enumerate().all(|(i, &x)| x == i as f32), "{descr}");
    }
    let read = decode("f", "x", &npy("<i2", "False", &shape, &short)).unwrap();
    assert!(read.as_slice::<i32>().unwrap().iter().enumerate().all(|(i, &x)| x == i32::from(i as i16)));
}

#[test]
fn column_major_arrays_of_rank_three_are_turned() {
    // x[i, j, k] = 100 i + 10 j + k of shape [2, 3, 2], first index fastest.
    let data: Vec<u8> =
        (0..2).flat_map(|k| (0..3).flat_map(move |j| (0..2).map(move |i| 100 * i + 10 * j + k))).collect();
    let read = decode("f", "a", &npy("|u1", "True", "(2, 3, 2)", &data)).unwrap();
    assert_eq!(read.as_slice::<u8>().unwrap(), [0, 1, 10, 11, 20, 21, 100, 101, 110, 111, 120, 121]);
}
