#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::{discovered::pod_uid, *};
use crate::settings::PodSettings;

const UID: &str = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0";

#[test]
fn the_uid_is_in_the_folders_name_in_both_layouts() {
    let systemd = UID.replace('-', "_");
    let fixed = "0123456789abcdef0123456789abcdef";
    let cases = [
        (format!("kubepods-burstable-pod{systemd}.slice"), Some(UID)),
        (format!("kubepods-pod{systemd}.slice"), Some(UID)),
        (format!("kubelet-kubepods-besteffort-pod{systemd}.slice"), Some(UID)),
        (format!("pod{UID}"), Some(UID)),
        (format!("pod{fixed}"), Some(fixed)),
        (format!("kubepods-pod{fixed}.slice"), Some(fixed)),
        ("kubepods.slice".to_owned(), None),
        ("kubepods-burstable.slice".to_owned(), None),
        ("kubepods".to_owned(), None),
        ("podman".to_owned(), None),
        (format!("pod{}", UID.to_uppercase()), None),
        (format!("pod{UID}0"), None),
        (format!("pod{systemd}"), None),
        (format!("cri-containerd-{fixed}.scope"), None),
        ("pod../../../../../../../../../../etc/passw".to_owned(), None),
    ];
    for (folder, uid) in cases {
        assert_eq!(pod_uid(&folder).as_deref(), uid, "{folder}");
    }
}

/// A tree of folders that looks like cgroups and processes.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn root(&self) -> PathBuf {
        self.0.path().join("cgroup")
    }

    fn proc(&self) -> PathBuf {
        self.0.path().join("proc")
    }

    fn cgroup(&self, path: &str, processes: &[u32]) -> PathBuf {
        let folder = self.root().join(path);
        fs::create_dir_all(&folder).unwrap();
        let lines: Vec<String> = processes.iter().map(|process| format!("{process}\n")).collect();
        fs::write(folder.join("cgroup.procs"), lines.concat()).unwrap();
        let populated = u8::from(!processes.is_empty());
        fs::write(folder.join("cgroup.events"), format!("populated {populated}\nfrozen 0\n")).unwrap();
        folder
    }

    /// A namespace: a file, to which processes link.
    fn namespace(&self, name: &str) -> u64 {
        let file = self.0.path().join(name);
        fs::write(&file, "").unwrap();
        inode(&file).unwrap()
    }

    fn process(&self, id: u32, namespace: &str, started: u64) {
        let folder = self.proc().join(id.to_string());
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("ns")).unwrap();
        std::os::unix::fs::symlink(self.0.path().join(namespace), folder.join("ns/net")).unwrap();
        let zeros = "0 ".repeat(18);
        fs::write(folder.join("stat"), format!("{id} (a) R) b() S {zeros}{started} 7 7\n")).unwrap();
    }

    fn look(&self, source: &mut Discovered) -> Vec<Candidate> {
        let seen = source.look(&BTreeSet::from([inode(&self.0.path().join("node")).unwrap()]));
        assert_eq!(seen.troubles, Vec::<String>::new());
        seen.pods
    }
}

#[test]
fn pods_are_found_with_the_namespace_of_their_oldest_process_that_is_not_the_nodes() {
    let tree = Tree::new();
    tree.namespace("node");
    let own = tree.namespace("own");
    tree.namespace("other");
    // conmon in the node's namespace is the oldest, then pause, then one that unshared.
    tree.process(10, "node", 1);
    tree.process(11, "own", 5);
    tree.process(12, "other", 9);
    let systemd = UID.replace('-', "_");
    let pod = format!("kubelet.slice/kubepods-burstable.slice/kubepods-burstable-pod{systemd}.slice");
    let folder = tree.cgroup(&pod, &[]);
    tree.cgroup(&format!("{pod}/crio-conmon-1.scope"), &[10, 0]);
    tree.cgroup(&format!("{pod}/cri-2.scope"), &[12, 99]);
    tree.cgroup(&format!("{pod}/cri-3.scope/nested"), &[11]);
    let mut source = Discovered::with_proc(&tree.root(), &tree.proc());
    let found = tree.look(&mut source);
    let path = tree.proc().join("11/ns/net");
    assert_eq!(
        found,
        [Candidate {
            identity: Identity::Uid(UID.to_owned()),
            cgroup_id: Some(inode(&folder).unwrap()),
            cgroup: folder,
            netns: Whereabouts::At { path, inode: own },
        }]
    );
}

#[test]
fn a_known_namespace_stays_while_any_process_is_in_it() {
    let tree = Tree::new();
    tree.namespace("node");
    let (own, next) = (tree.namespace("own"), tree.namespace("next"));
    tree.process(11, "own", 5);
    let pod = format!("kubepods/pod{UID}");
    tree.cgroup(&pod, &[11]);
    let mut source = Discovered::with_proc(&tree.root(), &tree.proc());
    let at = |id: u32, inode| Whereabouts::At { path: tree.proc().join(format!("{id}/ns/net")), inode };
    assert_eq!(tree.look(&mut source)[0].netns, at(11, own));
    // Its first process ends; an older one of another namespace does not take its place.
    fs::remove_dir_all(tree.proc().join("11")).unwrap();
    tree.process(9, "next", 1);
    tree.process(12, "own", 7);
    tree.cgroup(&pod, &[9, 12]);
    assert_eq!(tree.look(&mut source)[0].netns, at(12, own));
    // The number of the process is used again, by another pod's: not believed.
    tree.process(12, "node", 8);
    assert_eq!(tree.look(&mut source)[0].netns, at(9, next));
}

#[test]
fn a_pod_without_processes_or_on_the_nodes_network_is_told_as_such() {
    let tree = Tree::new();
    tree.namespace("node");
    let pod = format!("kubepods/besteffort/pod{UID}");
    tree.cgroup(&pod, &[]);
    let mut source = Discovered::with_proc(&tree.root(), &tree.proc());
    assert_eq!(tree.look(&mut source)[0].netns, Whereabouts::Absent { idle: true });
    tree.process(10, "node", 1);
    tree.cgroup(&pod, &[10]);
    assert_eq!(tree.look(&mut source)[0].netns, Whereabouts::Node);
}

#[test]
fn a_tree_that_is_not_there_is_trouble_and_no_empty_node() {
    let tree = Tree::new();
    let seen = Discovered::new(tree.root()).look(&BTreeSet::new());
    assert!(seen.pods.is_empty());
    assert_eq!(seen.troubles.len(), 1, "{:?}", seen.troubles);
}

#[test]
fn a_tree_deeper_or_larger_than_allowed_ends() {
    let tree = Tree::new();
    let deep = "a/".repeat(40);
    tree.cgroup(&deep, &[]);
    tree.cgroup(&format!("{deep}/pod{UID}"), &[]);
    tree.cgroup(&format!("kubepods/pod{UID}/pod{UID}"), &[]);
    let seen = Discovered::new(tree.root()).look(&BTreeSet::new());
    assert_eq!(seen.pods.len(), 1, "{:?}", seen.pods);
}

#[test]
fn listed_pods_are_told_whatever_state_they_are_in() {
    let tree = Tree::new();
    let (node, own) = (tree.namespace("node"), tree.namespace("own"));
    let cgroup = tree.cgroup("a", &[1]);
    let pod = |netns: &str, cgroup: &Path| PodSettings {
        name: "data/fhir".to_owned(),
        netns: tree.0.path().join(netns),
        cgroup: cgroup.to_owned(),
        probes: Vec::new(),
        socket_acceleration: Some(true),
    };
    let gone = tree.root().join("gone");
    let idle = tree.cgroup("idle", &[]);
    let pods = [
        pod("own", &cgroup),
        pod("node", &gone),
        pod("none", &cgroup),
        pod("none", &gone),
        pod("none", &idle),
    ];
    let seen = Listed::new(&pods).look(&BTreeSet::from([node]));
    assert_eq!(seen.troubles, Vec::<String>::new());
    let told: Vec<_> = seen.pods.iter().map(|pod| (pod.cgroup_id.is_some(), pod.netns.clone())).collect();
    assert_eq!(
        told,
        [
            (true, Whereabouts::At { path: tree.0.path().join("own"), inode: own }),
            (false, Whereabouts::Node),
            (true, Whereabouts::Absent { idle: false }),
            (false, Whereabouts::Absent { idle: true }),
            (true, Whereabouts::Absent { idle: true }),
        ]
    );
    let identity = Identity::Workload("data/fhir".parse().unwrap(), Some(true));
    assert!(seen.pods.iter().all(|pod| pod.identity == identity));
}

#[test]
fn bug_a_crowd_of_processes_hid_the_oldest_so_that_the_pod_chose_its_namespace() {
    let tree = Tree::new();
    tree.namespace("node");
    let own = tree.namespace("own");
    tree.namespace("made");
    tree.process(11, "own", 5);
    tree.process(5000, "made", 9);
    let pod = format!("kubepods/pod{UID}");
    let crowd: Vec<u32> = (5000..6100).collect();
    // The pod's own folder is looked into first.
    tree.cgroup(&pod, &crowd);
    tree.cgroup(&format!("{pod}/pause"), &[11]);
    let mut source = Discovered::with_proc(&tree.root(), &tree.proc());
    let at = Whereabouts::At { path: tree.proc().join("11/ns/net"), inode: own };
    assert_eq!(tree.look(&mut source)[0].netns, at);
    // With more than can be looked at nothing is said of it, and one that is held stays as it is.
    let crowd: Vec<u32> = (5000..).take(processes::MAX_PROCESSES + 1).collect();
    tree.cgroup(&pod, &crowd);
    assert_eq!(tree.look(&mut source)[0].netns, at, "the path that is known leads there");
    let seen = Discovered::with_proc(&tree.root(), &tree.proc()).look(&BTreeSet::new());
    assert_eq!(seen.pods[0].netns, Whereabouts::Unsure);
    assert_eq!(seen.troubles.len(), 1, "{:?}", seen.troubles);
}
