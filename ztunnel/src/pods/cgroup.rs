//! Which pod a process belongs to, from the text of its `/proc/<pid>/cgroup`. Pure.
//!
//! The kubelet puts a pod's processes below `kubepods`, in a cgroup that only root can leave or make
//! there. Only the first segments count: below its own cgroup a container may name others as it
//! likes. Paths are read as the node's first process sees them; those that lead out of somebody
//! else's view (`/../..`) tell nothing.
//!
//! ```text
//! cgroupfs  /kubepods/burstable/pod<uid>/<container>
//! systemd   /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice/<container>
//! ```
//! Guaranteed pods are directly below `kubepods`. In systemd's form the dashes of the UID are
//! underscores. cgroup v1 has a line for each hierarchy, v2 has one, and a node may have both.

use std::sync::Arc;

/// The cgroup of the kubelet that `kubepods` is in (its `--cgroup-root`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CgroupRoot(Vec<String>);

impl CgroupRoot {
    /// From a path such as `/` or `/kubelet`.
    pub fn new(path: &str) -> Self {
        Self(path.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect())
    }
}

/// The UID of the pod that a process is in. Nothing if it is in none, or if the hierarchies of cgroup
/// v1 do not agree: then whoever moved the process there wants it to be taken for another's.
pub(super) fn pod_uid(cgroup: &str, root: &CgroupRoot) -> Option<Arc<str>> {
    let mut found: Option<String> = None;
    for line in cgroup.lines() {
        // proc(5): hierarchy ID, controllers, path. The path may contain colons.
        let path = line.splitn(3, ':').nth(2)?;
        match (pod_of_path(path, root), &found) {
            (None, _) => {}
            (Some(uid), None) => found = Some(uid),
            (Some(uid), Some(other)) if uid == *other => {}
            (Some(_), Some(_)) => return None,
        }
    }
    found.map(Arc::from)
}

fn pod_of_path(path: &str, root: &CgroupRoot) -> Option<String> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    under_cgroupfs(&segments, root).or_else(|| under_systemd(&segments, root))
}

/// `<root>/kubepods[/<class>]/pod<uid>/...`
fn under_cgroupfs(segments: &[&str], root: &CgroupRoot) -> Option<String> {
    let below_root = strip(segments, root.0.iter().map(String::as_str))?;
    let below = strip(below_root, ["kubepods"])?;
    let pod = match below {
        [class, pod, ..] if CLASSES.contains(class) => pod,
        [pod, ..] => pod,
        [] => return None,
    };
    uid(pod.strip_prefix("pod")?)
}

/// `<root>.slice/<root>-kubepods.slice[/<root>-kubepods-<class>.slice]/<...>-pod<uid>.slice/...`:
/// the name of a slice holds those of the slices that it is in.
fn under_systemd(segments: &[&str], root: &CgroupRoot) -> Option<String> {
    let mut name = String::new();
    let mut rest = segments;
    for part in root.0.iter().map(String::as_str).chain(["kubepods"]) {
        if !name.is_empty() {
            name.push('-');
        }
        name.push_str(&part.replace('-', "_"));
        rest = strip(rest, [format!("{name}.slice").as_str()])?;
    }
    for class in CLASSES {
        if let Some(below) = strip(rest, [format!("{name}-{class}.slice").as_str()]) {
            name = format!("{name}-{class}");
            rest = below;
            break;
        }
    }
    let pod = rest.first()?.strip_prefix(&format!("{name}-pod"))?.strip_suffix(".slice")?;
    uid(&pod.replace('_', "-"))
}

fn strip<'a, 'b, 'c>(
    mut segments: &'a [&'b str],
    prefix: impl IntoIterator<Item = &'c str>,
) -> Option<&'a [&'b str]> {
    for expected in prefix {
        segments = match segments {
            [first, rest @ ..] if *first == expected => rest,
            _ => return None,
        };
    }
    Some(segments)
}

/// What the API server or a kubelet gives as a UID: letters, digits and dashes.
fn uid(text: &str) -> Option<String> {
    let is_uid = (1..=MAXIMUM).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-');
    is_uid.then(|| text.to_owned())
}

/// Quality-of-service classes that have a cgroup of their own.
const CLASSES: [&str; 2] = ["burstable", "besteffort"];

/// A UID has 36 characters, the hash that a static pod has in its place 32.
const MAXIMUM: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8f6f2d59-3c4e-4a08-9f5e-0c6c8f0a1b2c";
    const SLICE: &str = "8f6f2d59_3c4e_4a08_9f5e_0c6c8f0a1b2c";
    const OTHER: &str = "11111111-2222-3333-4444-555555555555";
    const CONTAINER: &str = "0f3b6a0d8e7c5b4a392817f6e5d4c3b2a1908f7e6d5c4b3a29180f7e6d5c4b3a";

    fn read(text: &str, root: &str) -> Option<String> {
        let text = text.replace("UID", UID).replace("SLICE", SLICE).replace("OTHER", OTHER);
        pod_uid(&text.replace("ID", CONTAINER), &CgroupRoot::new(root)).map(|uid| uid.to_string())
    }

    #[test]
    fn every_form_that_a_kubelet_and_a_runtime_give_a_cgroup_is_read() {
        let v1 = "12:pids:/kubepods/burstable/podUID/ID\n11:memory:/kubepods/burstable/podUID/ID\n\
                  1:name=systemd:/kubepods/burstable/podUID/ID\n0::/system.slice/containerd.service\n";
        let v1_systemd = "11:memory:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podSLICE.slice/crio-ID.scope\n\
                          1:name=systemd:/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podSLICE.slice/crio-ID.scope\n";
        for (form, text, root) in [
            ("v2, cgroupfs, guaranteed, containerd", "0::/kubepods/podUID/ID\n", "/"),
            ("v2, cgroupfs, burstable, containerd", "0::/kubepods/burstable/podUID/ID\n", "/"),
            ("v2, cgroupfs, best effort, CRI-O", "0::/kubepods/besteffort/podUID/crio-ID\n", "/"),
            (
                "v2, systemd, guaranteed, containerd",
                "0::/kubepods.slice/kubepods-podSLICE.slice/cri-containerd-ID.scope\n",
                "/",
            ),
            (
                "v2, systemd, burstable, containerd",
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podSLICE.slice/cri-containerd-ID.scope\n",
                "/",
            ),
            (
                "v2, systemd, best effort, CRI-O with crun",
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podSLICE.slice/crio-ID.scope/container\n",
                "/",
            ),
            ("v2, systemd, cri-dockerd", "0::/kubepods.slice/kubepods-podSLICE.slice/docker-ID.scope\n", "/"),
            ("the pod's own cgroup", "0::/kubepods/burstable/podUID\n", "/"),
            ("v1, cgroupfs, containerd", v1, "/"),
            ("v1, systemd, CRI-O", v1_systemd, "/"),
            (
                "v1 and v2 at once",
                "5:cpu,cpuacct:/kubepods/podUID/ID\n1:name=systemd:/kubepods/podUID/ID\n0::/kubepods/podUID/ID\n",
                "/",
            ),
            ("a root of the kubelet's, cgroupfs", "0::/kubelet/kubepods/burstable/podUID/ID\n", "/kubelet"),
            (
                "a root of the kubelet's, systemd",
                "0::/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-podSLICE.slice/cri-containerd-ID.scope\n",
                "/kubelet",
            ),
            ("a cgroup of the container's own", "0::/kubepods/burstable/podUID/ID/init.scope/worker\n", "/"),
        ] {
            assert_eq!(read(text, root).as_deref(), Some(UID), "{form}");
        }
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        let text = format!(
            "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice/crio-1.scope"
        );
        assert_eq!(read(&text, "/").as_deref(), Some(hash), "a static pod");
    }

    #[test]
    fn forgeries_gain_nothing() {
        for (forgery, text, expected) in [
            (
                "a nested cgroup named for another pod",
                "0::/kubepods/burstable/podUID/ID/kubepods/burstable/podOTHER/ID\n",
                Some(UID),
            ),
            ("a nested cgroup in the pod's place", "0::/kubepods/burstable/podUID/podOTHER\n", Some(UID)),
            (
                "a nested slice named for another pod",
                "0::/kubepods.slice/kubepods-podSLICE.slice/cri-containerd-ID.scope/kubepods-podOTHER.slice\n",
                Some(UID),
            ),
            ("hierarchies that disagree", "2:cpu:/kubepods/podUID/ID\n1:pids:/kubepods/podOTHER/ID\n", None),
            (
                "a user's own cgroup",
                "0::/user.slice/user-1000.slice/user@1000.service/kubepods/burstable/podUID/ID\n",
                None,
            ),
            ("another container runtime's", "0::/docker/ID/kubepods/podUID/ID\n", None),
            ("another root than the kubelet's", "0::/kubelet/kubepods/podUID/ID\n", None),
            ("a view from elsewhere", "0::/../../kubepods/podUID/ID\n", None),
            (
                "a view from a sibling",
                "0::/../kubepods-burstable-podSLICE.slice/cri-containerd-ID.scope\n",
                None,
            ),
            (
                "a slice of another class's name",
                "0::/kubepods.slice/kubepods-burstable.slice/kubepods-podSLICE.slice/x\n",
                None,
            ),
            ("a class in place of the pod", "0::/kubepods/burstable\n", None),
            ("no UID", "0::/kubepods/pod/ID\n", None),
            ("a UID with a slash's cousin", "0::/kubepods/pod..%2f/ID\n", None),
            ("a process of the node", "0::/system.slice/kubelet.service\n", None),
            ("a thread of the kernel", "0::/\n", None),
            ("nothing", "", None),
            ("half a line", "0:", None),
        ] {
            assert_eq!(read(text, "/").as_deref(), expected, "{forgery}");
        }
    }
}
