#![allow(clippy::unwrap_used, reason = "tests may panic")]
use super::*;

fn with(folder: &tempfile::TempDir) -> Cache {
    Cache::new(folder.path().join("kiln"))
}

fn found(text: &str) -> Lookup {
    Lookup::Found(text.as_bytes().to_vec())
}

fn why(lookup: Lookup) -> String {
    match lookup {
        Lookup::Ignored(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_was_put_last_is_found_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let cache = with(&folder);
    assert_eq!(cache.get("a"), Lookup::Missing);
    for content in ["first", "", "last"] {
        cache.put("a", content.as_bytes()).unwrap();
        assert_eq!(cache.get("a"), found(content));
    }
    assert_eq!(cache.get("b"), Lookup::Missing);
    assert_eq!(cache.within("other").get("a"), Lookup::Missing);
}

#[test]
fn the_hash_is_the_published_one() {
    // From the authors' test vectors.
    assert_eq!(
        [fnv1a(b""), fnv1a(b"a"), fnv1a(b"foobar")],
        [0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c, 0x8594_4171_f739_67e8]
    );
}

#[test]
fn every_truncation_and_every_altered_byte_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = with(&folder);
    cache.put("key", b"content").unwrap();
    let path = cache.path("key");
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        why(cache.get("key"));
    }
    for at in 0..whole.len() {
        let mut altered = whole.clone();
        altered[at] ^= 0x10;
        fs::write(&path, altered).unwrap();
        why(cache.get("key"));
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    why(cache.get("key"));
    cache.put("key", b"anew").unwrap();
    assert_eq!(cache.get("key"), found("anew"));
}

/// An entry whose checksum is right and whose fields are the given ones.
fn forged(lengths: [u32; 3], parts: &str) -> Vec<u8> {
    let body: Vec<u8> = lengths.iter().flat_map(|l| l.to_le_bytes()).chain(parts.bytes()).collect();
    [&MAGIC[..], &crc32fast::hash(&body).to_le_bytes(), &body].concat()
}

#[test]
fn another_version_another_key_and_wrong_lengths_are_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let cache = with(&folder);
    cache.put("key", b"content").unwrap();
    let v = VERSION.len() as u32;
    let cases = [
        (forged([6, 3, 7], "0.0.xxkeycontent"), "another version"),
        (forged([v, 3, 7], &format!("{VERSION}yekcontent")), "another key"),
        (forged([v, 3, 8], &format!("{VERSION}keycontent")), "lengths are not"),
        (forged([v, u32::MAX, 7], &format!("{VERSION}keycontent")), "lengths exceed"),
        (forged([u32::MAX, 3, 7], &format!("{VERSION}keycontent")), "lengths exceed"),
        (b"GIF89a..................".to_vec(), "not an entry"),
        (vec![0; LARGEST as usize + 1], "larger than any entry"),
    ];
    for (bytes, expected) in cases {
        fs::write(cache.path("key"), bytes).unwrap();
        let reason = why(cache.get("key"));
        assert!(reason.contains(expected), "{reason}");
    }
    // The forgery of the tests is the real thing.
    fs::write(cache.path("key"), forged([v, 3, 7], &format!("{VERSION}keycontent"))).unwrap();
    assert_eq!(cache.get("key"), found("content"));
}

#[test]
fn what_is_no_file_is_neither_read_nor_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let cache = with(&folder);
    fs::create_dir_all(cache.path("folder")).unwrap();
    assert!(why(cache.get("folder")).contains("not a regular file"));
    assert!(cache.put("folder", b"x").is_err());
    #[cfg(unix)]
    {
        let pipe = cache.path("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(why(cache.get("pipe")).contains("not a regular file"));
        cache.put("pipe", b"x").unwrap();
        assert_eq!(cache.get("pipe"), found("x"));
    }
}

/// Somebody else's link in a shared folder must not lead a write to one's own files.
#[cfg(unix)]
#[test]
fn a_link_is_replaced_and_not_followed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = with(&folder);
    cache.put("other", b"").unwrap();
    let precious = folder.path().join("precious");
    fs::write(&precious, "mine").unwrap();
    std::os::unix::fs::symlink(&precious, cache.path("key")).unwrap();
    cache.put("key", b"content").unwrap();
    assert_eq!((fs::read_to_string(&precious).unwrap().as_str(), cache.get("key")), ("mine", found("content")));
}

#[test]
fn a_folder_that_cannot_be_made_or_written_makes_nothing_fail_but_the_put() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let cache = Cache::new(file.join("kiln"));
    assert!(cache.put("key", b"content").is_err());
    assert!(!matches!(cache.get("key"), Lookup::Found(_)));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let cache = with(&folder);
        cache.put("old", b"content").unwrap();
        let mode = |mode| fs::set_permissions(cache.folder(), fs::Permissions::from_mode(mode)).unwrap();
        mode(0o500);
        // The superuser may write anyway.
        let writable = fs::write(cache.folder().join("probe"), "").is_ok();
        assert_eq!((cache.put("key", b"content").is_ok(), cache.get("old")), (writable, found("content")));
        mode(0o700);
    }
}

#[test]
fn the_least_recently_used_entries_go_first() {
    let folder = tempfile::tempdir().unwrap();
    let size = entry("0", &[0; 100]).unwrap().len() as u64;
    let cache = Cache::with_capacity(folder.path(), 3 * size);
    let long_ago = |key: &str, hours: u64| {
        let file = File::options().write(true).open(cache.path(key)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    };
    fs::write(folder.path().join("README"), [0; 4096]).unwrap();
    for key in ["0", "1", "2"] {
        cache.put(key, &[0; 100]).unwrap();
    }
    for (key, hours) in [("0", 30), ("1", 20), ("2", 10)] {
        long_ago(key, hours);
    }
    // Used now: the next one to go is "1".
    assert!(matches!(cache.get("0"), Lookup::Found(_)));
    cache.put("3", &[0; 100]).unwrap();
    let there: Vec<bool> = ["0", "1", "2", "3"].map(|key| matches!(cache.get(key), Lookup::Found(_))).into();
    assert_eq!(there, [true, false, true, true]);
    assert!(folder.path().join("README").exists(), "what is no entry is left alone");
}

#[test]
fn writers_and_readers_at_the_same_time_see_whole_entries() {
    let folder = tempfile::tempdir().unwrap();
    let cache = with(&folder);
    let contents: Vec<Vec<u8>> = (0..4u8).map(|n| vec![n; 1000 + 500 * n as usize]).collect();
    cache.put("key", &contents[0]).unwrap();
    std::thread::scope(|scope| {
        for content in &contents {
            let cache = cache.clone();
            scope.spawn(move || (0..50).for_each(|_| cache.put("key", content).unwrap()));
        }
        for _ in 0..2 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let Lookup::Found(content) = cache.get("key") else { panic!("an entry was seen in parts") };
                    assert!(contents.contains(&content));
                }
            });
        }
    });
    let left: Vec<_> = fs::read_dir(cache.folder()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

#[test]
fn what_killed_writers_left_long_ago_is_removed() {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::new(folder.path());
    let name = cache.path("key").file_name().unwrap().to_str().unwrap().to_owned();
    let (old, new, other) = (format!(".{name}.aaaaaa.partial"), format!(".{name}.bbbbbb.partial"), ".a.partial");
    for name in [&*old, &new, other] {
        fs::write(folder.path().join(name), "half").unwrap();
    }
    for name in [&*old, other] {
        let file = File::options().write(true).open(folder.path().join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
    }
    cache.put("key", b"content").unwrap();
    let there: Vec<bool> = [&*old, &new, other].iter().map(|name| folder.path().join(name).exists()).collect();
    assert_eq!(there, [false, true, true]);
}

#[test]
fn the_folder_follows_the_specification() {
    let folder = |variables: &[(&str, &str)]| {
        let variables: std::collections::HashMap<&str, &str> = variables.iter().copied().collect();
        folder_of_user(|name| variables.get(name).map(OsString::from))
    };
    let is = |path: &str| Some(PathBuf::from(path));
    assert_eq!(folder(&[("HOME", "/h")]), is("/h/.cache/kiln"));
    assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]), is("/c/kiln"));
    assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "c")]), is("/h/.cache/kiln"), "relative counts as unset");
    assert_eq!(folder(&[("HOME", "/h"), ("XDG_CACHE_HOME", "")]), is("/h/.cache/kiln"), "so does an empty one");
    assert_eq!(folder(&[("HOME", "/h"), (FOLDER_VARIABLE, "k")]), is("k"));
    assert_eq!(folder(&[("HOME", "/h"), (FOLDER_VARIABLE, "")]), None, "switched off");
    assert_eq!(folder(&[]), None);
}
