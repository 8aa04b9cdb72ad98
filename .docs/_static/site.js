// A picture is a link to itself: it opens at its full size, and on a phone its link is the box that
// it moves in (site.css).
document.addEventListener("DOMContentLoaded", () => {
  const others = "a img, [src^='data:'], .sphx-glr-thumbcontainer img"; // the last are links already
  for (const picture of document.querySelectorAll(`.bd-article img:not(${others})`)) {
    const link = document.createElement("a");
    link.className = "picture";
    link.href = picture.src;
    picture.replaceWith(link);
    link.append(picture);
  }
});
