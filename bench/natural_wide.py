"""The documents of bench/natural.py --half wide, which is for tuning alone: none of them, and none of
their packages, is among those that figures are reported on or that an adapter was trained on.

bench/natural_documents.py fetches them; their questions and what was invented for them lie in
bench/natural/wide/.
"""

# Debian package -> version, SHA-256. All are of architecture "all": one hash for every machine.
PACKAGES = {
    "alpine-doc": ("2.26+dfsg-1",
                   "0f0b808c9602e6290add3b1ac7bd109fd6eac5ecfb0b62560e8c44ad1c8c5ccc"),
    "angband-data": ("1:3.5.1-2.5",
                     "b0fd778c0824cc2fb684b95d8483a74f7806cfb0ee66955b40eae6473ae29a9f"),
    "apt-doc": ("2.6.2", "7588436ff4bd6812cf1cea65de4fe64bf98d84c6b022714f8453e8a6e89079d9"),
    "apt-listbugs": ("0.1.40", "8fcf5a369d189daaf0a2dabdd86283157dcd0168ee73e2016bd771b88f921564"),
    "arno-iptables-firewall": ("2.1.1-8",
                               "af99e2c0be19c261c6a2341f72bd547dbcbeecf66a20ed53b285e050e93503e5"),
    "backupninja": ("1.2.2-1", "b69bf2bfd4a5744d133f679c60a78516a934801b08e978a28cdead90f1bea28b"),
    "crawl-common": ("2:0.28.0-1.1",
                     "50c8f0091ba88538dde6585e5eddba02677bfe94d3ee4dc90a5bd3a788650f59"),
    "dbconfig-common": ("2.0.24",
                        "23433c2fff2b7684c9355a49e11ffa59435fe54fc935762eada830ed8dfecabe"),
    "debian-history": ("2.28", "ae364cdfd075bf6a08ca8f5105b44db7093e3b201c95d3b70a863b8849c6a082"),
    "debian-kernel-handbook": ("1.0.21",
                               "98a810b308bf2be87dc4191161c3d9f889dd6142f712df32dfb02b3c34594b48"),
    "dict-elements": ("20001107-a-9.1",
                      "c840ae31017fca01e2d56e178b8d18ade279d24f41d7a285c6150a233f730ffa"),
    "dirvish": ("1.2.1-2.1", "56251e301bcc7be2e47cf9c5684547b57ab67348dcfe099770365849caa36972"),
    "docutils-doc": ("0.19+dfsg-6",
                     "c25ac5cd1404d68f04ae501bca28b9961416c94889fd9515a749f2fc643c9b93"),
    "elinks-doc": ("0.13.2-1", "a246f8876742138fa995b47c4ac42f79ee31401dfce3fdf3c80ccaf54f8b6dd6"),
    "emacsen-common": ("3.0.5", "74d972556adf85fbbfb0b3b10dcf16687547a9ef521c7c86f5cda454e11a60df"),
    "getmail6": ("6.18.11-2", "58f59c2605755893f33aeb9fa63bda3016e558e91ffce5e3ea6720d7e0c9c6ac"),
    "hunspell-en-gb": ("1:7.5.0-1",
                       "02d7e794bf14a644e3083e61fc8f10351133a27403cb653eb43c3145e35d9b3e"),
    "ikiwiki": ("3.20200202.3-1",
                "3fd2d1a04bbc0a2b5acd1b9f3f5383d24137e5cfd0da6836c43ca8278d30150b"),
    "laptop-mode-tools": ("1.74-1.2",
                          "69bf812772906baf4b750b9a4452c41a888a9d340bd51f95ddb07ff3033b9f37"),
    "logwatch": ("7.7-1", "338143f248f6be5494b53cc263e9c0303785a2a67b58671bde1028f0c484f6df"),
    "lynx-common": ("2.9.0dev.12-1",
                    "3018c15ba98c9fc934ab86202f13b7af9066f742d5959c6c14ee98d6cac9fbe6"),
    "mc-data": ("3:4.8.29-2", "a273c2e833524f1d2e8579b737802b18ad4c77d9f45b3ef7d6fc6b2605e4fd3d"),
    "mplayer-doc": ("2:1.5+svn38408-1",
                    "d28a513e4ed2f032e69d1a097b1fc3fbe93fc37c47a004f1d8359c49b687445f"),
    "popularity-contest": ("1.76",
                           "b19a6af29a52831c621bf00bbabb88227e7914afcdd074290a825846266731a5"),
    "rkhunter": ("1.4.6-11", "acaa78997cc3787383651ff7dc95f0fce3f86682b08ecdbddf4209e32591ae05"),
    "rsnapshot": ("1.4.5-1", "2913d1b96ce474abc512dd3792a73405a65d0389d23b5d80208fb0a420e38394"),
    "scowl": ("2020.12.07-2", "de692546df9b169f2cbdf4d8d88111a374733a9c382b820a6f943914ca705718"),
    "sylpheed-doc": ("20140827-3",
                     "9bbceb04e855c600b1a97e1e3239b5ad9f2da5f80c522be015dc96d6bbe676f2"),
    "tuxpaint-data": ("1:0.9.28-sdl2-1",
                      "f5d0de8f9a70d2efc1241d19f26168cb8bf279f1b77abd3631e7a1a55c40e5e5"),
    "ufw": ("0.36.2-1", "8c49b7e010b046717eb9a910d14ba2185bc1342be7a2201dd63bfb536676426c"),
    "weechat-doc": ("3.8-1", "c818a3ee6efc02b58b7a5e30dc262d22f0c3ee20d19e37f1a5acb85a955f768e"),
    "when": ("1.1.45-1", "1d9005e1eb6e7f4335a186264b80e2e75386e0155e2a9c67adb2be44660367ec"),
    "xfig-doc": ("1:3.2.8b-2", "36b17319b7c3fd7c670bd24dbce393e0776e1a4347a9467166194c8baec5644f"),
    "zsh-doc": ("5.9-4", "79bd75df4bf03d1021e993fd773f82b8a4c8d76649e420cd32eca940cf418ff4"),
}

MAN, DOC = "usr/share/man", "usr/share/doc"
# Name of the document's file -> kind, package (None: the repository), file in it.
DOCUMENTS = {
    "popcon-faq.txt": ("FAQ", "popularity-contest", f"{DOC}/popularity-contest/FAQ.gz"),
    "rkhunter-faq.txt": ("FAQ", "rkhunter", f"{DOC}/rkhunter/FAQ.gz"),
    "dirvish-faq.html": ("FAQ", "dirvish", f"{DOC}/dirvish/FAQ.html"),
    "getmail-faq.html": ("FAQ", "getmail6", f"{DOC}/getmail6/faq.html"),
    "tuxpaint-faq.html": ("FAQ", "tuxpaint-data", f"{DOC}/tuxpaint-data/en/html/FAQ.html"),
    "xfig-faq.html": ("FAQ", "xfig-doc", f"{DOC}/xfig/html/faq.html"),
    "weechat-faq.html": ("FAQ", "weechat-doc", f"{DOC}/weechat-doc/html/weechat_faq.en.html"),
    "sylpheed-faq-2.html":
        ("FAQ", "sylpheed-doc", f"{DOC}/sylpheed-doc/FAQ/en/sylpheed-faq-2.html"),
    "mc-faq.txt": ("FAQ", "mc-data", f"{DOC}/mc-data/FAQ.gz"),
    "docutils-faq.txt": ("FAQ", "docutils-doc", f"{DOC}/docutils-doc/FAQ.txt"),
    "zsh-faq-1.html": ("FAQ", "zsh-doc", f"{DOC}/zsh-common/html/FAQ01.html"),
    "listbugs-faq.md": ("FAQ", "apt-listbugs", f"{DOC}/apt-listbugs/FAQ.md.gz"),
    "rsnapshot-howto.html": ("HOWTO", "rsnapshot", f"{DOC}/rsnapshot/html/rsnapshot-HOWTO.en.html"),
    "logwatch-howto.txt": ("HOWTO", "logwatch", f"{DOC}/logwatch/HOWTO-Customize-LogWatch.gz"),
    "apt-guide.txt": ("HOWTO", "apt-doc", f"{DOC}/apt-doc/guide.text.gz"),
    "apt-offline.txt": ("HOWTO", "apt-doc", f"{DOC}/apt-doc/offline.text.gz"),
    "mplayer-encoding-tips.txt":
        ("HOWTO", "mplayer-doc", f"{DOC}/mplayer/tech/encoding-tips.txt.gz"),
    "laptop-mode.txt":
        ("HOWTO", "laptop-mode-tools", f"{DOC}/laptop-mode-tools/laptop-mode.txt.gz"),
    "tuxpaint-readme.html": ("README", "tuxpaint-data", f"{DOC}/tuxpaint-data/en/html/README.html"),
    "scowl-readme.txt": ("README", "scowl", f"{DOC}/scowl/README.gz"),
    "arno-readme.txt":
        ("README", "arno-iptables-firewall", f"{DOC}/arno-iptables-firewall/README.gz"),
    "ufw-readme.txt": ("README", "ufw", f"{DOC}/ufw/README.gz"),
    "backupninja-readme.md": ("README", "backupninja", f"{DOC}/backupninja/README.md.gz"),
    "hunspell-readme.txt":
        ("README", "hunspell-en-gb", f"{DOC}/hunspell-en-gb/README_en_GB.txt.gz"),
    "emacs-policy.txt":
        ("policy", "emacsen-common", f"{DOC}/emacsen-common/debian-emacs-policy.gz"),
    "dbapp-policy.txt": ("policy", "dbconfig-common", f"{DOC}/dbconfig-common/dbapp-policy.txt.gz"),
    "kernel-bugs.html":
        ("policy", "debian-kernel-handbook",
         f"{DOC}/debian-kernel-handbook/kernel-handbook.html/ch-bugs.html"),
    "debian-history.html":
        ("history", "debian-history", f"{DOC}/debian-history/docs/detailed.en.html"),
    "debian-manifesto.html":
        ("history", "debian-history", f"{DOC}/debian-history/docs/manifesto.en.html"),
    "lynx-changes-2.4.txt": ("history", "lynx-common", f"{DOC}/lynx-common/docs/CHANGES2.4.gz"),
    "angband-general.txt": ("manual", "angband-data", "usr/share/angband/help/general.txt"),
    "angband-dungeon.txt": ("manual", "angband-data", "usr/share/angband/help/dungeon.txt"),
    "crawl-quickstart.pdf": ("manual", "crawl-common", f"{DOC}/crawl-common/quickstart.pdf.gz"),
    "elinks-intro.txt": ("manual", "elinks-doc", f"{DOC}/elinks/introduction.txt.gz"),
    "alpine-background.html": ("manual", "alpine-doc", f"{DOC}/alpine/tech-notes/background.html"),
    "ikiwiki-security.html": ("manual", "ikiwiki", f"{DOC}/ikiwiki/html/security.html"),
    "when.1.txt": ("manual page", "when", f"{MAN}/man1/when.1.gz"),
    "elements.txt": ("dictionary", "dict-elements", "usr/share/dictd/elements.dict.dz"),
    **{f"{name}.txt": ("everyday papers", None, f"wide/{name}.txt")
       for name in ("rules-hut", "recipe-fish-soup", "travel-canoe", "contract-donkeys",
                    "pattern-mittens", "log-bees", "programme-festival", "licence-photographs",
                    "leaflet-cast")},
}
